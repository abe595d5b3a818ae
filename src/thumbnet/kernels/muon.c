// The passes of Muon's step over a kernel, its gradient and their sums; see muon.py.
//
// All are R rows of C numbers, floats but for the directions. Sums are kept for each row, so that they do not depend on the
// number of threads.

#include "number.h"

enum { LANES = 32 };  // sums side by side, which compilers turn into vectors

INLINE void look_ahead_in_part(const float *restrict kernel, const float *restrict gradient, float *restrict buffer,
                               number *restrict direction, float *restrict moved, float *restrict held, float momentum,
                               long width) {
  for (long k = 0; k < width; k++) {
    float sum = momentum * buffer[k] + gradient[k], ahead = gradient[k] + momentum * sum;
    buffer[k] = sum;
    direction[k] = narrow(ahead);
    moved[k] += ahead * ahead;
    held[k] += kernel[k] * kernel[k];
  }
}

// buffer = momentum buffer + gradient; direction = gradient + momentum buffer. squares 2 R: of each row's direction, of its kernel.
void look_ahead(const float *kernel, const float *gradient, float *buffer, number *direction, float *squares, double momentum,
                long rows, long columns, long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long row = 0; row < rows; row++) {
    float moved[LANES] = {0}, held[LANES] = {0};
    long i = row * columns, end = i + columns;
    for (; i + LANES <= end; i += LANES)
      look_ahead_in_part(kernel + i, gradient + i, buffer + i, direction + i, moved, held, (float)momentum, LANES);
    look_ahead_in_part(kernel + i, gradient + i, buffer + i, direction + i, moved, held, (float)momentum, end - i);
    float of_direction = 0, of_kernel = 0;
    for (long k = 0; k < LANES; k++) of_direction += moved[k], of_kernel += held[k];
    squares[row] = of_direction;
    squares[rows + row] = of_kernel;
  }
}

// kernel = scale kernel - rate direction
void take_step(float *restrict kernel, const number *restrict direction, double scale, double rate, long numbers, long threads) {
  const float kept = (float)scale, length = (float)rate;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < numbers; i++) kernel[i] = kept * kernel[i] - length * wide(direction[i]);
}
