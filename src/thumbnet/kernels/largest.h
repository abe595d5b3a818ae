// Max-pooling by 2 x 2, of a map as it lies or of a tile.

#ifndef LARGEST
#define LARGEST

#include "number.h"

// The largest of 2 x 2 pixels of each channel and which it was (0 to 3, the first of equals); a NaN is the largest of all.
INLINE void largest(const number *x, long right, long below, number *best, uint8_t *place, long channels) {
#pragma omp simd
  for (long c = 0; c < channels; c++) {
    float value = wide(x[c]);
    uint32_t at = 0;
    float b = wide(x[c + right]), d = wide(x[c + below]), e = wide(x[c + right + below]);
    at = (b > value) | (b != b) ? 1 : at;
    value = at == 1 ? b : value;
    at = (d > value) | (d != d) ? 2 : at;
    value = at == 2 ? d : value;
    at = (e > value) | (e != e) ? 3 : at;
    value = at == 3 ? e : value;
    best[c] = narrow(value);
    place[c] = (uint8_t)at;
  }
}

#endif
