// What one instruction multiplies when a convolution is computed by tiles: a float, or in bf16 two numbers, whose products go
// into one sum; see winograd.c.

#ifndef ELEMENTS
#define ELEMENTS

#include "points.h"

#ifdef FLOAT

enum { TERMS = 1 };  // numbers of an element

typedef float element;

typedef vector factors;

INLINE vector add_product(vector sums, element factor, factors line) { return sums + factor * line; }

#else

#include <immintrin.h>

enum { TERMS = 2 };

typedef uint32_t element;

typedef uint32_t factors __attribute__((vector_size(64), aligned(4)));

INLINE vector add_product(vector sums, element factor, factors line) {
  return (vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32((int)factor), (__m512bh)line);
}

// Two times 16 floats -> 16 elements.
INLINE void store_pairs(const float *low, const float *high, element *to) {
  __m512i one_after_the_other = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
  __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                   23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, one_after_the_other));
}

#endif

enum { PARTS = LANES / WIDTH };

INLINE long panels(long channels) { return (channels + LANES - 1) / LANES; }

// Elements that the channels of an input make, and lines of them: the last line may hold fewer.
INLINE long lines_of(long channels) { return (panels(channels) + TERMS - 1) / TERMS; }
INLINE long elements(long channels) {
  long before = (lines_of(channels) - 1) * LANES;
  return before + smaller(LANES, channels - before * TERMS);
}

#endif
