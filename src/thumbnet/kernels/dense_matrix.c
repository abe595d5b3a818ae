// A 3 x 3 kernel as the matrix of its convolution on a small square map, and back for the gradient; see dense_matrix.py.
//
// A kernel is D C 9, its taps in rows of three. The matrix is P D P C for a map of P pixels, side * side: from every input
// pixel to every output pixel through the one tap that joins them; zeros where none does.

#include "number.h"

enum { TAPS = 9, BLOCK = 256 };  // input channels at a time, so that nine rows of them stay in the first cache

INLINE long tap_between(long out, long in, long side) {  // -1 where no tap joins them
  long down = in / side - out / side + 1, right = in % side - out % side + 1;
  return down < 0 || down > 2 || right < 0 || right > 2 ? -1 : down * 3 + right;
}

void dense_from_kernel(const float *kernel, number *matrix, long channels_out, long channels, long side, long threads) {
  long pixels = side * side, row = pixels * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long d = 0; d < channels_out; d++) {
    number taps[TAPS][BLOCK];
    for (long first = 0; first < channels; first += BLOCK) {
      long width = smaller(BLOCK, channels - first);
      const float *from = kernel + (d * channels + first) * TAPS;
      for (long tap = 0; tap < TAPS; tap++)
        for (long c = 0; c < width; c++) taps[tap][c] = narrow(from[c * TAPS + tap]);
      for (long out = 0; out < pixels; out++)
        for (long in = 0; in < pixels; in++) {
          long tap = tap_between(out, in, side);
          number *to = matrix + (out * channels_out + d) * row + in * channels + first;
          if (tap < 0) memset(to, 0, (size_t)width * sizeof(number));
          else memcpy(to, taps[tap], (size_t)width * sizeof(number));
        }
    }
  }
}

void kernel_from_dense(const number *matrix, float *kernel, long channels_out, long channels, long side, long threads) {
  long pixels = side * side, row = pixels * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long d = 0; d < channels_out; d++) {
    float taps[TAPS][BLOCK];
    for (long first = 0; first < channels; first += BLOCK) {
      long width = smaller(BLOCK, channels - first);
      memset(taps, 0, sizeof(taps));
      for (long out = 0; out < pixels; out++)
        for (long in = 0; in < pixels; in++) {
          long tap = tap_between(out, in, side);
          const number *from = matrix + (out * channels_out + d) * row + in * channels + first;
          if (tap >= 0)
            for (long c = 0; c < width; c++) taps[tap][c] += wide(from[c]);
        }
      float *to = kernel + (d * channels + first) * TAPS;
      for (long tap = 0; tap < TAPS; tap++)
        for (long c = 0; c < width; c++) to[c * TAPS + tap] = taps[tap][c];
    }
  }
}
