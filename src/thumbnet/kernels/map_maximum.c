// The largest number of each channel of a map, and its gradient; see map_maximum.py. Maps are N P C.

#include "number.h"

// x -> y, N C; a NaN is the largest of all.
void map_maximum(const number *x, number *y, long images, long pixels, long channels, long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < images; n++) {
    const number *pixel = x + n * pixels * channels;
    number *best = y + n * channels;
    memcpy(best, pixel, (size_t)channels * sizeof(number));
    for (long p = 1; p < pixels; p++) {
      pixel += channels;
#pragma omp simd
      for (long c = 0; c < channels; c++) {
        float here = wide(pixel[c]), there = wide(best[c]);
        best[c] = (here > there) | (here != here) ? pixel[c] : best[c];
      }
    }
  }
}

// The gradient of y goes to the pixels that are as large as it is, in equal parts. Where it is a NaN none is, and all
// gradients are NaN: infinite parts, times 0.
void map_maximum_backward(const number *x, const number *y, const number *gradient, number *result, long images, long pixels,
                          long channels, long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < images; n++) {
    const number *map = x + n * pixels * channels, *best = y + n * channels;
    float part[channels];
    memset(part, 0, (size_t)channels * sizeof(float));
    for (long p = 0; p < pixels; p++)
#pragma omp simd
      for (long c = 0; c < channels; c++) part[c] += wide(map[p * channels + c]) == wide(best[c]);
#pragma omp simd
    for (long c = 0; c < channels; c++) part[c] = wide(gradient[n * channels + c]) / part[c];
    for (long p = 0; p < pixels; p++) {
      number *to = result + (n * pixels + p) * channels;
#pragma omp simd
      for (long c = 0; c < channels; c++)
        to[c] = narrow(part[c] * (float)(wide(map[p * channels + c]) == wide(best[c])));
    }
  }
}
