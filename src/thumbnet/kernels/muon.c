// The passes of Muon's step over a kernel, its gradient and the sum of those before; see muon.py.
//
// All are rows of columns, floats but for the directions. Sums are kept for each row, and each number is computed on its own,
// so that nothing depends on the number of threads.

#include "number.h"

enum { LANES = 32 };  // sums side by side, which compilers turn into vectors

INLINE void look_ahead_in_part(const float *restrict kernel, const float *restrict gradient, float *restrict buffer,
                               number *restrict direction, float *restrict of_direction, float *restrict of_kernel,
                               float momentum, long width) {
  for (long k = 0; k < width; k++) {
    float sum = momentum * buffer[k] + gradient[k], ahead = gradient[k] + momentum * sum;
    buffer[k] = sum;
    direction[k] = narrow(ahead);
    of_direction[k] += ahead * ahead;
    of_kernel[k] += kernel[k] * kernel[k];
  }
}

// buffer = momentum buffer + gradient; direction = gradient + momentum buffer.
// squares: of each row's direction, then of its kernel.
void look_ahead(const float *kernel, const float *gradient, float *buffer, number *direction, float *squares, double momentum,
                long rows, long columns, long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long row = 0; row < rows; row++) {
    float of_direction[LANES] = {0}, of_kernel[LANES] = {0}, direction_sum = 0, kernel_sum = 0;
    long i = row * columns, end = i + columns;
    for (; i + LANES <= end; i += LANES) {
      fetch(kernel + i, LANES * (long)sizeof(float)), fetch(gradient + i, LANES * (long)sizeof(float));
      fetch_to_write(buffer + i, LANES * (long)sizeof(float));
      look_ahead_in_part(kernel + i, gradient + i, buffer + i, direction + i, of_direction, of_kernel, (float)momentum, LANES);
    }
    look_ahead_in_part(kernel + i, gradient + i, buffer + i, direction + i, of_direction, of_kernel, (float)momentum, end - i);
    for (long k = 0; k < LANES; k++) direction_sum += of_direction[k], kernel_sum += of_kernel[k];
    squares[row] = direction_sum;
    squares[rows + row] = kernel_sum;
  }
}

// kernel = scale kernel - rate direction
void take_step(float *restrict kernel, const number *restrict direction, double scale, double rate, long rows, long columns,
               long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long row = 0; row < rows; row++)  // as wide for one thread as for many: where vectors end decides on the last bits
    for (long i = row * columns; i < (row + 1) * columns; i++)
      kernel[i] = (float)scale * kernel[i] - (float)rate * wide(direction[i]);
}
