// The tile registers of Intel AMX. TILES is defined where the processor has them and numbers are bf16.
//
// A tile register holds 16 rows of 64 bytes, and one instruction multiplies 16 x 32 by 32 x 16 numbers, the second operand with
// its rows in pairs.

#ifndef TILES_H
#define TILES_H

#include "number.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(FLOAT)

#define TILES

#include <immintrin.h>

enum {
  BLOCK = 32,         // rows, columns and summands that a step takes of either operand: two tiles by two
  TILE = 16 * BLOCK,  // bf16 in a tile
};

struct tiles {  // the layout that the processor loads; palette 1 is the only one
  uint8_t palette, start, zero[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Eight whole tiles for this thread; gives what was set up before, for `leave_tiles`.
INLINE struct tiles set_up_tiles(void) {
  struct tiles before, layout = {.palette = 1};
  for (int i = 0; i < 8; i++) layout.bytes[i] = 64, layout.rows[i] = 16;
  memset(&before, 0, sizeof(before));
  _tile_storeconfig(&before);
  __asm__ volatile("" : "+m"(before), "+m"(layout));  // gcc takes either for eight bytes
  _tile_loadconfig(&layout);
  return before;
}

// Should somebody have had tiles set up, they are found as they were.
INLINE void leave_tiles(const struct tiles *before) {
  __asm__ volatile("" ::"m"(*before));
  if (before->palette) _tile_loadconfig(before);
  else _tile_release();
}

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
