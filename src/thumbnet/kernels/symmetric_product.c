// A B' of two matrices whose product is known to be symmetric, in pairs of bf16: by the tile registers of Intel AMX, or where the
// processor has none by vectors; see symmetric_product.py.
//
// Only what lies on and above the diagonal is computed, in blocks of 32 x 32, and mirrored. Matrices are R x K bf16, both sides
// multiples of 32.

#include "tiles.h"

#ifdef PAIRS

#include <omp.h>

// 16 rows of B, their numbers in steps of 32 -> tiles of pairs.
static void turn_rows(const bf16 *from, bf16 *turned, long columns) {
  for (long step = 0; step < columns / BLOCK; step++) {
    __m512i rows[16];
    for (int i = 0; i < 16; i++) rows[i] = _mm512_loadu_si512(from + i * columns + step * BLOCK);
    turn(rows, turned + step * TILE);
  }
}

#ifdef TILES

// 32 rows of A times 32 rows of B, which are turned -> 32 x 32 floats.
static void multiply(const bf16 *a, const bf16 *turned, float *sums, long columns) {
  const long line = columns * (long)sizeof(bf16), steps = columns / BLOCK, of_tile = BLOCK * sizeof(bf16);
  __asm__ volatile("" ::: "memory");  // gcc does not know that a tile is loaded from memory: what was stored is to be there
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long step = 0; step < steps; step++) {
    _tile_loadd(4, a + step * BLOCK, line);
    _tile_loadd(6, turned + step * TILE, of_tile);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, turned + (steps + step) * TILE, of_tile);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 16 * columns + step * BLOCK, line);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, BLOCK * sizeof(float));
  _tile_stored(1, sums + 16, BLOCK * sizeof(float));
  _tile_stored(2, sums + 16 * BLOCK, BLOCK * sizeof(float));
  _tile_stored(3, sums + 16 * BLOCK + 16, BLOCK * sizeof(float));
  __asm__ volatile("" ::: "memory");  // nor that it is stored there
}

#else

enum { ROWS = 8 };  // whose sums fit the registers, 32 numbers each

// 32 rows of A times 32 rows of B, which are turned -> 32 x 32 floats.
static void multiply(const bf16 *a, const bf16 *turned, float *sums, long columns) {
  const bf16 *turned_after = turned + 16 * columns;  // the lower 16 rows of B
  for (long first = 0; first < BLOCK; first += ROWS) {
    __m512 left[ROWS], right[ROWS];
    for (int r = 0; r < ROWS; r++) left[r] = right[r] = _mm512_setzero_ps();
    for (long pair = 0; pair < columns / 2; pair++) {  // 16 of them make a tile, each a line of B's rows
      __m512bh upper = (__m512bh)_mm512_load_si512(turned + pair * BLOCK);
      __m512bh lower = (__m512bh)_mm512_load_si512(turned_after + pair * BLOCK);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        int two;
        memcpy(&two, a + (first + r) * columns + 2 * pair, sizeof(two));
        __m512bh factor = (__m512bh)_mm512_set1_epi32(two);
        left[r] = _mm512_dpbf16_ps(left[r], factor, upper);
        right[r] = _mm512_dpbf16_ps(right[r], factor, lower);
      }
    }
    for (int r = 0; r < ROWS; r++) {
      _mm512_store_ps(sums + (first + r) * BLOCK, left[r]);
      _mm512_store_ps(sums + (first + r) * BLOCK + 16, right[r]);
    }
  }
}

#endif

// 32 x 32 numbers, turned.
INLINE void mirror(const bf16 *block, bf16 *mirrored) {
  bf16 pairs[2][TILE] __attribute__((aligned(64)));  // of neighbouring columns, for the upper and the lower 16 rows
  for (int half = 0; half < 2; half++) {
    __m512i rows[16];
    for (int i = 0; i < 16; i++) rows[i] = _mm512_load_si512(block + (16 * half + i) * BLOCK);
    turn(rows, pairs[half]);
  }
  // 0, 2, ... 62.
  const __m512i upward = _mm512_set_epi32(0x3e003c, 0x3a0038, 0x360034, 0x320030, 0x2e002c, 0x2a0028, 0x260024, 0x220020,  //
                                          0x1e001c, 0x1a0018, 0x160014, 0x120010, 0xe000c, 0xa0008, 0x60004, 0x20000);
  for (int k = 0; k < 16; k++) {
    __m512i upper = _mm512_load_si512(pairs[0] + k * BLOCK), lower = _mm512_load_si512(pairs[1] + k * BLOCK);
    _mm512_store_si512(mirrored + 2 * k * BLOCK, _mm512_permutex2var_epi16(upper, upward, lower));
    __m512i odd = _mm512_add_epi16(upward, _mm512_set1_epi16(1));
    _mm512_store_si512(mirrored + (2 * k + 1) * BLOCK, _mm512_permutex2var_epi16(upper, odd, lower));
  }
}

// alpha sums + beta C + gamma I of block i, j, whose rows are `row` numbers apart -> there in the result, and mirrored.
static void put(const float *sums, const bf16 *c, bf16 *result, float alpha, float beta, float gamma, long i, long j, long row) {
  bf16 block[BLOCK * BLOCK] __attribute__((aligned(64))), mirrored[BLOCK * BLOCK] __attribute__((aligned(64)));
  for (long p = 0; p < BLOCK; p++) {
    float values[BLOCK];
    for (long q = 0; q < BLOCK; q++) values[q] = alpha * sums[p * BLOCK + q];
    if (c) {
      const bf16 *held = c + (i * BLOCK + p) * row + j * BLOCK;
      for (long q = 0; q < BLOCK; q++) values[q] += beta * wide(held[q]);
    }
    if (i == j) values[p] += gamma;
    for (long q = 0; q < BLOCK; q++) block[p * BLOCK + q] = narrow(values[q]);
  }
  if (i == j)  // on the diagonal, half of the block is mirrored within it
    for (long p = 0; p < BLOCK; p++)
      for (long q = 0; q < p; q++) block[p * BLOCK + q] = block[q * BLOCK + p];
  mirror(block, mirrored);
  for (long p = 0; p < BLOCK; p++) {
    memcpy(result + (i * BLOCK + p) * row + j * BLOCK, block + p * BLOCK, BLOCK * sizeof(bf16));
    memcpy(result + (j * BLOCK + p) * row + i * BLOCK, mirrored + p * BLOCK, BLOCK * sizeof(bf16));
  }
}

// result R R = alpha A B' + beta C + gamma I, where A B' and C, R R, are symmetric; no C where it is null. By all threads of a
// team, with tiles set up where there are any; `turned` has room for 32 rows of B.
static void product(const bf16 *a, const bf16 *b, const bf16 *c, bf16 *turned, bf16 *result, double alpha, double beta,
                    double gamma, long rows, long columns) {
  long blocks = rows / BLOCK;
#pragma omp for schedule(dynamic)
  for (long done = 0; done < blocks; done++) {
    long j = blocks - 1 - done;  // the longest first
    for (long half = 0; half < BLOCK; half += 16)
      turn_rows(b + (j * BLOCK + half) * columns, turned + half * columns, columns);
    for (long i = 0; i <= j; i++) {
      float sums[BLOCK * BLOCK] __attribute__((aligned(64)));
      multiply(a + i * BLOCK * columns, turned, sums, columns);
      put(sums, c, result, (float)alpha, (float)beta, (float)gamma, i, j, rows);
    }
  }
}

// `product`, with room for 32 rows of B for each thread.
void symmetric_product(const bf16 *a, const bf16 *b, const bf16 *c, bf16 *turned, bf16 *result, double alpha, double beta,
                       double gamma, long rows, long columns, long threads) {
#pragma omp parallel num_threads(threads)
  {
    struct tiles before = set_up_tiles();
    product(a, b, c, turned + omp_get_thread_num() * BLOCK * columns, result, alpha, beta, gamma, rows, columns);
    leave_tiles(&before);
  }
}

// The iteration of Newton and Schulz on a Gram matrix G, R R: Z = 1, then `steps` times F = a + b G + c G G, Z = F Z, G = F G F.
// `room` has seven matrices, of which Z is the last in the end, and `turned` 32 rows for each thread.
void newton_schulz(const bf16 *gram, bf16 *room, bf16 *turned, double a, double b, double c, long steps, long rows,
                   long threads) {
  long size = rows * rows;
#pragma omp parallel num_threads(threads)
  {
    struct tiles before = set_up_tiles();
    bf16 *mine = turned + omp_get_thread_num() * BLOCK * rows, *half_way = room, *last = room + 6 * size;
    const bf16 *g = gram, *z = 0;
    for (long step = 0; step < steps; step++) {
      bf16 *factor = room + (1 + step % 2) * size, *next = room + (3 + step % 2) * size;
      bf16 *moved = (steps - 1 - step) % 2 ? room + 5 * size : last;
      if (!z) factor = moved;
      product(g, g, g, mine, factor, c, b, a, rows, rows);
      if (z) product(factor, z, 0, mine, moved, 1, 0, 0, rows, rows);
      z = moved;
      if (step + 1 == steps) break;
      product(factor, g, 0, mine, half_way, 1, 0, 0, rows, rows);
      product(half_way, factor, 0, mine, next, 1, 0, 0, rows, rows);
      g = next;
    }
    leave_tiles(&before);
  }
}

#endif
