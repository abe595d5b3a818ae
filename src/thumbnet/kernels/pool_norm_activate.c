// Pooling, batch normalisation and activation of maps in channels-last order, without a pass over memory too many.
//
// A map is N images of H x W pixels of C channels, each a "number" (number.h). Sums are floats, kept for each image and
// added in the order of the images, so that no result depends on the number of threads.

#include "activation.h"
#include "largest.h"

// x: N H W C -> pooled and place: N H/2 W/2 C.
void pool(const number *x, number *pooled, uint8_t *place, long images, long height, long width, long channels, long threads) {
  long rows = height / 2, columns = width / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < images; n++)
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < columns; j++) {
        long from = ((n * height + 2 * i) * width + 2 * j) * channels, to = ((n * rows + i) * columns + j) * channels;
        const number *four = x + from;
        long below = width * channels;
#pragma omp simd
        for (long c = 0; c < channels; c++)
          pooled[to + c] = narrow(largest(wide(four[c]), wide(four[c + channels]), wide(four[c + below]),
                                          wide(four[c + below + channels]), place + to + c));
      }
}

// Sums over the pixels of each image: sums and squares, N C, of x: N P C less `middle`, C, which keeps the squares small.
void statistics(const number *x, const float *middle, float *sums, float *squares, long images, long pixels, long channels,
                long threads) {
  long line = channels * (long)sizeof(number);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < images; n++) {
    float *sum = sums + n * channels, *square = squares + n * channels;
    memset(sum, 0, channels * sizeof(float));
    memset(square, 0, channels * sizeof(float));
    for (long p = 0; p < pixels; p++) {
      const number *pixel = x + (n * pixels + p) * channels;
      fetch(pixel, line);
#pragma omp simd
      for (long c = 0; c < channels; c++) {
        float value = wide(pixel[c]) - middle[c];
        sum[c] += value;
        square[c] += value * value;
      }
    }
  }
}

// Channels are taken in blocks of a cache line.
enum { BLOCK = 16 };

INLINE void add_images(const float *values, double *total, long images, long channels, long first, long width) {
  for (long k = 0; k < width; k++) total[k] = 0;
  for (long n = 0; n < images; n++)
    for (long k = 0; k < width; k++) total[k] += values[n * channels + first + k];
}

// From those sums over `count` pixels: each channel's mean and inverse deviation; what the map is multiplied by and moved by
// to be normalised, weighted and shifted; the running statistics a step of `momentum` nearer. All C.
void moments(const float *middle, const float *sums, const float *squares, const float *weight, const float *bias,
             float *running_mean, float *running_variance, float *mean, float *inverse_deviation, float *scale, float *shift,
             long images, long channels, long count, double epsilon, double momentum, long threads) {
  double unbiased = (double)count / (double)(count > 1 ? count - 1 : 1);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long first = 0; first < channels; first += BLOCK) {
    double sum[BLOCK], square[BLOCK];
    long width = smaller(BLOCK, channels - first);
    add_images(sums, sum, images, channels, first, width);
    add_images(squares, square, images, channels, first, width);
    for (long k = 0, c = first; k < width; k++, c++) {
      double offset = sum[k] / (double)count, variance = square[k] / (double)count - offset * offset;
      variance = variance < 0 ? 0 : variance;  // a NaN stays one
      mean[c] = middle[c] + (float)offset;
      inverse_deviation[c] = (float)(1.0 / __builtin_sqrt(variance + epsilon));
      scale[c] = weight[c] * inverse_deviation[c];
      shift[c] = bias[c] - mean[c] * scale[c];
      running_mean[c] += (float)momentum * (mean[c] - running_mean[c]);
      running_variance[c] += (float)momentum * ((float)(variance * unbiased) - running_variance[c]);
    }
  }
}

// Inside the activation: what is normalised, and what is added to it, where there is something.
INLINE float inside(const number *x, const number *added, const float *scale, const float *shift, long c) {
  float value = wide(x[c]) * scale[c] + shift[c];
  return added ? value + wide(added[c]) : value;
}

INLINE void forward_pixel(const number *x, const number *added, const float *scale, const float *shift, number *y, long channels,
                          enum activation kind) {
#pragma omp simd
  for (long c = 0; c < channels; c++) y[c] = narrow(activate(inside(x, added, scale, shift, c), kind));
}

// y = activation(x * scale + shift + added), all pixels C; `added` may be null.
void forward(const number *x, const number *added, const float *scale, const float *shift, number *y, long pixels, long channels,
             long kind, long threads) {
  long line = channels * (long)sizeof(number);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long p = 0; p < pixels; p++) {
    const number *from = x + p * channels;
    number *to = y + p * channels;
    fetch(from, line), fetch_to_write(to, line);
    if (added) {
      const number *other = added + p * channels;
      fetch(other, line);
#define FORWARD_ADDED(kind) forward_pixel(from, other, scale, shift, to, channels, kind)
      FOR_ACTIVATION(kind, FORWARD_ADDED)
    } else {
#define FORWARD(kind) forward_pixel(from, 0, scale, shift, to, channels, kind)
      FOR_ACTIVATION(kind, FORWARD)
    }
  }
}

INLINE void backward_pixel(const number *x, const number *added, const number *gradient, const float *scale, const float *shift,
                           const float *middle, number *inner, float *sum, float *product, long channels,
                           enum activation kind) {
#pragma omp simd
  for (long c = 0; c < channels; c++) {
    float value = wide(x[c]);
    float g = wide(gradient[c]) * slope(inside(x, added, scale, shift, c), kind);
    inner[c] = narrow(g);
    sum[c] += g;
    product[c] += g * (value - middle[c]);
  }
}

// The gradient inside the activation, `inner`: N P C, and its sums for each image: N C, alone and times x less `middle`.
void backward(const number *x, const number *added, const number *gradient, const float *scale, const float *shift,
              const float *middle, number *inner, float *sums, float *products, long images, long pixels, long channels,
              long kind, long threads) {
  long line = channels * (long)sizeof(number);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < images; n++) {
    float *sum = sums + n * channels, *product = products + n * channels;
    memset(sum, 0, channels * sizeof(float));
    memset(product, 0, channels * sizeof(float));
    for (long p = 0; p < pixels; p++) {
      long at = (n * pixels + p) * channels;
      const number *value = x + at, *g = gradient + at;
      number *to = inner + at;
      fetch(value, line), fetch(g, line), fetch_to_write(to, line);
      if (added) {
        const number *other = added + at;
        fetch(other, line);
#define BACKWARD_ADDED(kind) backward_pixel(value, other, g, scale, shift, middle, to, sum, product, channels, kind)
        FOR_ACTIVATION(kind, BACKWARD_ADDED)
      } else {
#define BACKWARD(kind) backward_pixel(value, 0, g, scale, shift, middle, to, sum, product, channels, kind)
        FOR_ACTIVATION(kind, BACKWARD)
      }
    }
  }
}

// From those sums: the gradients of weight and bias, and what mean and variance take back, slope * x + constant, where the
// batch decides them. All C.
void backward_moments(const float *sums, const float *products, const float *scale, const float *mean,
                      const float *inverse_deviation, float *of_weight, float *of_bias, float *slope, float *constant,
                      long images, long channels, long count, long batch_decides, long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long first = 0; first < channels; first += BLOCK) {
    double sum[BLOCK], product[BLOCK];
    long width = smaller(BLOCK, channels - first);
    add_images(sums, sum, images, channels, first, width);
    add_images(products, product, images, channels, first, width);
    for (long k = 0, c = first; k < width; k++, c++) {
      of_bias[c] = (float)sum[k];
      of_weight[c] = (float)product[k] * inverse_deviation[c];
      slope[c] = batch_decides ? -scale[c] * inverse_deviation[c] * of_weight[c] / (float)count : 0;
      constant[c] = batch_decides ? -scale[c] * of_bias[c] / (float)count - slope[c] * mean[c] : 0;
    }
  }
}

// Through the normalisation: result = inner * a + x * b + constant, all N P C with a, b and constant C. The result may lie where
// `inner` does.
void backward_norm(const number *inner, const number *x, const float *a, const float *b, const float *constant, number *result,
                   long rows, long channels, long threads) {
  long line = channels * (long)sizeof(number);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long p = 0; p < rows; p++) {
    long at = p * channels;
    fetch(inner + at, line), fetch(x + at, line);
    if (result != inner) fetch_to_write(result + at, line);
#pragma omp simd
    for (long c = 0; c < channels; c++)
      result[at + c] = narrow(wide(inner[at + c]) * a[c] + wide(x[at + c]) * b[c] + constant[c]);
  }
}

// The same, then through the pooling, into result, N H W C: each value goes to its place among 2 x 2, and zeros to the others.
void backward_norm_pool(const number *inner, const number *x, const uint8_t *place, const float *a, const float *b,
                        const float *constant, number *result, long images, long height, long width, long channels,
                        long threads) {
  long rows = height / 2, columns = width / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < images; n++) {
    number *image = result + n * height * width * channels;
    for (long i = 0; i < rows; i++) {
      for (long j = 0; j < columns; j++) {
        long at = ((n * rows + i) * columns + j) * channels;
        number *to = image + (2 * i * width + 2 * j) * channels;
        number *right = to + channels, *below = to + width * channels, *across = below + channels;
#pragma omp simd
        for (long c = 0; c < channels; c++) {
          number g = narrow(wide(inner[at + c]) * a[c] + wide(x[at + c]) * b[c] + constant[c]);
          uint32_t where = place[at + c];
          to[c] = where == 0 ? g : 0;
          right[c] = where == 1 ? g : 0;
          below[c] = where == 2 ? g : 0;
          across[c] = where == 3 ? g : 0;
        }
      }
      if (width % 2)  // the last column was not pooled
        for (long r = 0; r < 2; r++) memset(image + ((2 * i + r) * width + width - 1) * channels, 0, channels * sizeof(number));
    }
    if (height % 2) memset(image + (height - 1) * width * channels, 0, width * channels * sizeof(number));
  }
}
