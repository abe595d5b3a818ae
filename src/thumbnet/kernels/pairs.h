// Numbers in pairs, as one instruction multiplies them: two of either operand, whose products go into one sum. PAIRS is defined
// where numbers are bf16 and the processor has such instructions (AVX-512 BF16, and with tile registers Intel AMX).

#ifndef PAIRS_H
#define PAIRS_H

#include "number.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(FLOAT)

#define PAIRS

#include <immintrin.h>

enum {
  BLOCK = 32,         // rows, columns and summands that a step takes of either operand: two tiles by two
  TILE = 16 * BLOCK,  // bf16 in a tile
};

// 16 rows of 16 pairs of bf16, turned; the tile begins at a multiple of 64 bytes.
INLINE void turn(__m512i *rows, bf16 *tile) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int k = 0; k < 2; k++) {
      b[i + 2 * k] = _mm512_unpacklo_epi64(a[i + k], a[i + 2 + k]);
      b[i + 2 * k + 1] = _mm512_unpackhi_epi64(a[i + k], a[i + 2 + k]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int k = 0; k < 4; k++) {
      a[i + k] = _mm512_shuffle_i32x4(b[i + k], b[i + 4 + k], 0x88);
      a[i + 4 + k] = _mm512_shuffle_i32x4(b[i + k], b[i + 4 + k], 0xdd);
    }
  for (int k = 0; k < 8; k++) {
    _mm512_store_si512(tile + k * BLOCK, _mm512_shuffle_i32x4(a[k], a[8 + k], 0x88));
    _mm512_store_si512(tile + (8 + k) * BLOCK, _mm512_shuffle_i32x4(a[k], a[8 + k], 0xdd));
  }
}

#endif

#endif
