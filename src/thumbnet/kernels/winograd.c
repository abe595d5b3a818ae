// What a 3 x 3 convolution needs beside matrix products when it is computed by tiles (Winograd); see winograd.py.
//
// An output of 4 x 4 pixels depends on 6 x 6 of the input. Both, and the kernel, are changed into 36 numbers of which only
// those at the same place meet, instead of 9 taps for each of 16 pixels: 36 multiplications where there were 144. Matrices are those of
// Lavin & Gray 2016, https://arxiv.org/abs/1509.09308, section 4.2.
//
// Maps are channels last. Everything else lies in panels of 16 channels: places x panels x tiles x 16 for what was changed, places x
// panels of D x C x 16 for kernels. So each of the 36 places is a matrix product whose operands are read in the order they lie.

#include "number.h"

#ifdef FLOAT

enum { STEP = 4, REACH = 6, PLACES = REACH * REACH, LANES = 16 };  // LANES: channels of a panel, a cache line

typedef float lanes[LANES];

// What the processor adds and multiplies at once, and rows of a product that fit its registers beside two operands.
#ifdef __AVX512F__
enum { WIDTH = 16, ROWS = 8 };
#else
enum { WIDTH = 8, ROWS = 6 };
#endif
enum { PARTS = LANES / WIDTH };

// gcc would read a line again for every row, and reading, not multiplying, would set the pace.
#ifdef __x86_64__
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#else
#define IN_REGISTER(value)
#endif

typedef float vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

// One column of six numbers (`stride` lanes apart) -> B^T of it.
INLINE void of_input(const lanes *d, lanes *to, long stride) {
#pragma omp simd
  for (long c = 0; c < LANES; c++) {
    float d0 = d[0][c], d1 = d[stride][c], d2 = d[2 * stride][c], d3 = d[3 * stride][c], d4 = d[4 * stride][c],
          d5 = d[5 * stride][c];
    to[0][c] = 4 * d0 - 5 * d2 + d4;
    to[stride][c] = -4 * (d1 + d2) + d3 + d4;
    to[2 * stride][c] = 4 * (d1 - d2) - d3 + d4;
    to[3 * stride][c] = 2 * (d3 - d1) + d4 - d2;
    to[4 * stride][c] = 2 * (d1 - d3) + d4 - d2;
    to[5 * stride][c] = 4 * d1 - 5 * d3 + d5;
  }
}

// Six numbers -> A^T of them, four.
INLINE void of_products(const lanes *m, lanes *to, long stride) {
#pragma omp simd
  for (long c = 0; c < LANES; c++) {
    float m0 = m[0][c], m1 = m[stride][c], m2 = m[2 * stride][c], m3 = m[3 * stride][c], m4 = m[4 * stride][c],
          m5 = m[5 * stride][c];
    float sum = m1 + m2, difference = m1 - m2, far_sum = m3 + m4, far_difference = m3 - m4;
    to[0][c] = m0 + sum + far_sum;
    to[stride][c] = difference + 2 * far_difference;
    to[2 * stride][c] = sum + 4 * far_sum;
    to[3 * stride][c] = difference + 8 * far_difference + m5;
  }
}

// Four numbers of an output's gradient -> A of them, six.
INLINE void of_gradient(const lanes *g, lanes *to, long stride) {
#pragma omp simd
  for (long c = 0; c < LANES; c++) {
    float g0 = g[0][c], g1 = g[stride][c], g2 = g[2 * stride][c], g3 = g[3 * stride][c];
    to[0][c] = g0;
    to[stride][c] = g0 + g1 + g2 + g3;
    to[2 * stride][c] = g0 - g1 + g2 - g3;
    to[3 * stride][c] = g0 + 2 * g1 + 4 * g2 + 8 * g3;
    to[4 * stride][c] = g0 - 2 * g1 + 4 * g2 - 8 * g3;
    to[5 * stride][c] = g3;
  }
}

// Three taps -> G of them, six; and back for the gradient.
INLINE void of_taps(const lanes *k, lanes *to, long stride) {
#pragma omp simd
  for (long c = 0; c < LANES; c++) {
    float k0 = k[0][c], k1 = k[stride][c], k2 = k[2 * stride][c], ends = k0 + k2, far_ends = k0 / 24 + k2 / 6;
    to[0][c] = k0 / 4;
    to[stride][c] = -(ends + k1) / 6;
    to[2 * stride][c] = (k1 - ends) / 6;
    to[3 * stride][c] = far_ends + k1 / 12;
    to[4 * stride][c] = far_ends - k1 / 12;
    to[5 * stride][c] = k2;
  }
}

INLINE void of_places(const lanes *m, lanes *to, long stride) {
#pragma omp simd
  for (long c = 0; c < LANES; c++) {
    float m0 = m[0][c], m1 = m[stride][c], m2 = m[2 * stride][c], m3 = m[3 * stride][c], m4 = m[4 * stride][c],
          m5 = m[5 * stride][c];
    to[0][c] = m0 / 4 - (m1 + m2) / 6 + (m3 + m4) / 24;
    to[stride][c] = (m2 - m1) / 6 + (m3 - m4) / 12;
    to[2 * stride][c] = (m3 + m4 - m1 - m2) / 6 + m5;
  }
}

INLINE long least(long a, long b) { return a < b ? a : b; }

// `side` x `side` pixels of LANES channels from (top, left) of an image; zeros beyond its edges and channels.
INLINE void read_square(const float *image, lanes *to, long side, long top, long left, long height, long width, long channels,
                        long first) {
  long count = least(LANES, channels - first);
  for (long i = 0; i < side; i++)
    for (long j = 0; j < side; j++) {
      long row = top + i, column = left + j;
      float *lane = to[i * REACH + j];
      if (row < 0 || row >= height || column < 0 || column >= width) memset(lane, 0, sizeof(lanes));
      else if (count == LANES) memcpy(lane, image + (row * width + column) * channels + first, sizeof(lanes));
      else {
        memset(lane, 0, sizeof(lanes));
        memcpy(lane, image + (row * width + column) * channels + first, (size_t)count * sizeof(float));
      }
    }
}

INLINE long panels(long channels) { return (channels + LANES - 1) / LANES; }

// What was changed lies in 36 streams, more than a processor watches: each is told of its lines AHEAD tiles before they are needed.
// So panels are gone through one after the other, not the tiles.
enum { AHEAD = 4 };

INLINE void write_places(const lanes *from, float *to, long tile, long tiles, long panel, long count) {
  for (long place = 0; place < PLACES; place++) {
    float *line = to + ((place * count + panel) * tiles + tile) * LANES;
    __builtin_prefetch(line + AHEAD * LANES, 1);
    memcpy(line, from[place], sizeof(lanes));
  }
}

INLINE void read_places(const float *from, lanes *to, long tile, long tiles, long panel, long count) {
  for (long place = 0; place < PLACES; place++) {
    const float *line = from + ((place * count + panel) * tiles + tile) * LANES;
    __builtin_prefetch(line + AHEAD * LANES);
    memcpy(to[place], line, sizeof(lanes));
  }
}

// x: N H W C -> 36 x panels of C x tiles x 16, for an output of `rows` x `columns` pixels and, here and below, `tiles` tiles, those
// of all images and some more to fill up.
void winograd_input(const float *x, float *to, long images, long height, long width, long channels, long rows, long columns,
                    long padding, long tiles, long threads) {
  long down = (rows + STEP - 1) / STEP, across = (columns + STEP - 1) / STEP, count = images * down * across;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < panels(channels) * count; work++) {
    long panel = work / count, tile = work % count;
    const float *image = x + tile / (down * across) * height * width * channels;
    long top = tile / across % down * STEP - padding, left = tile % across * STEP - padding;
    lanes d[PLACES], half[PLACES], whole[PLACES];
    read_square(image, d, REACH, top, left, height, width, channels, panel * LANES);
    for (long j = 0; j < REACH; j++) of_input(d + j, half + j, REACH);
    for (long i = 0; i < REACH; i++) of_input(half + i * REACH, whole + i * REACH, 1);
    write_places(whole, to, tile, tiles, panel, panels(channels));
  }
}

// Products, 36 x panels of D x tiles x 16 -> y: N H' W' D.
void winograd_output(const float *products, float *y, long images, long rows, long columns, long channels, long tiles,
                     long threads) {
  long down = (rows + STEP - 1) / STEP, across = (columns + STEP - 1) / STEP, count = images * down * across;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < panels(channels) * count; work++) {
    long panel = work / count, tile = work % count, first = panel * LANES;
    float *image = y + tile / (down * across) * rows * columns * channels;
    long top = tile / across % down * STEP, left = tile % across * STEP;
    size_t size = (size_t)least(LANES, channels - first) * sizeof(float);
    lanes m[PLACES], half[PLACES], whole[PLACES];
    read_places(products, m, tile, tiles, panel, panels(channels));
    for (long j = 0; j < REACH; j++) of_products(m + j, half + j, REACH);
    for (long i = 0; i < STEP; i++) of_products(half + i * REACH, whole + i * REACH, 1);
    for (long i = 0; i < STEP && top + i < rows; i++)
      for (long j = 0; j < STEP && left + j < columns; j++)
        memcpy(image + ((top + i) * columns + left + j) * channels + first, whole[i * REACH + j], size);
  }
}

// The gradient of the output, N H' W' D -> 36 x panels of D x tiles x 16, what the kernel's gradient is made of.
void winograd_gradient(const float *gradient, float *to, long images, long rows, long columns, long channels, long tiles,
                     long threads) {
  long down = (rows + STEP - 1) / STEP, across = (columns + STEP - 1) / STEP, count = images * down * across;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < panels(channels) * count; work++) {
    long panel = work / count, tile = work % count;
    const float *image = gradient + tile / (down * across) * rows * columns * channels;
    long top = tile / across % down * STEP, left = tile % across * STEP;
    lanes g[PLACES], half[PLACES], whole[PLACES];
    read_square(image, g, STEP, top, left, rows, columns, channels, panel * LANES);
    for (long j = 0; j < STEP; j++) of_gradient(g + j, half + j, REACH);
    for (long i = 0; i < REACH; i++) of_gradient(half + i * REACH, whole + i * REACH, 1);
    write_places(whole, to, tile, tiles, panel, panels(channels));
  }
}

// Where the tap of a kernel D C 9 lies. `turned`: the kernel of the gradient of the input, whose outputs are C, turned round.
INLINE long tap_at(long out, long in, long tap, long channels, long turned) {
  return turned ? (in * channels + out) * 9 + 8 - tap : (out * channels + in) * 9 + tap;
}

// A kernel D C 9 -> 36 x panels of D x C x 16; `turned` -> 36 x panels of C x D x 16. `channels`: its C.
void winograd_kernel(const float *kernel, float *to, long outputs, long inputs, long channels, long turned, long threads) {
  long out = panels(outputs);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < out * inputs; work++) {
    long first = work / inputs * LANES, in = work % inputs;
    lanes k[3 * REACH] = {0}, half[PLACES], whole[PLACES];
    for (long lane = 0; lane < least(LANES, outputs - first); lane++)
      for (long tap = 0; tap < 9; tap++)
        k[tap / 3 * REACH + tap % 3][lane] = kernel[tap_at(first + lane, in, tap, channels, turned)];
    for (long j = 0; j < 3; j++) of_taps(k + j, half + j, REACH);
    for (long i = 0; i < REACH; i++) of_taps(half + i * REACH, whole + i * REACH, 1);
    for (long place = 0; place < PLACES; place++) memcpy(to + (place * out * inputs + work) * LANES, whole[place], sizeof(lanes));
  }
}

// The gradient of a changed kernel, 36 x panels of D x C x 16 with C filled up to a multiple of 16 -> that of the kernel, D C 9.
void winograd_kernel_back(const float *changed, float *kernel, long channels_out, long channels, long threads) {
  long out = panels(channels_out), lines = panels(channels) * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long panel = 0; panel < out; panel++)
    for (long c = 0; c < channels; c++) {
      lanes m[PLACES], half[PLACES], whole[PLACES];
      for (long place = 0; place < PLACES; place++)
        memcpy(m[place], changed + ((place * out + panel) * lines + c) * LANES, sizeof(lanes));
      for (long j = 0; j < REACH; j++) of_places(m + j, half + j, REACH);
      for (long i = 0; i < 3; i++) of_places(half + i * REACH, whole + i * REACH, 1);
      for (long lane = 0; lane < least(LANES, channels_out - panel * LANES); lane++)
        for (long tap = 0; tap < 9; tap++)
          kernel[tap_at(panel * LANES + lane, c, tap, channels, 0)] = whole[tap / 3 * REACH + tap % 3][lane];
    }
}

// `count` rows of 16 sums from where they are kept into registers, and back. (memcpy would go through memory.)
INLINE void load_sums(const float *from, long count, vector sums[ROWS][PARTS]) {
#pragma GCC unroll 16
  for (int i = 0; i < count * PARTS; i++) sums[i / PARTS][i % PARTS] = ((const vector *)from)[i];
}

INLINE void store_sums(vector sums[ROWS][PARTS], long count, float *to) {
#pragma GCC unroll 16
  for (int i = 0; i < count * PARTS; i++) ((vector *)to)[i] = sums[i / PARTS][i % PARTS];
}

// Adds to `count` rows of sums, at most ROWS: to each, `length` numbers of a row, `stride` apart, times as many lines of `other`.
INLINE void add_products(const float *rows, long row, long count, const float *other, long length, long stride,
                         vector sums[ROWS][PARTS]) {
  for (long k = 0; k < length; k++) {
    vector line[PARTS];
#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
      line[part] = ((const vector *)(other + k * LANES))[part];
      IN_REGISTER(line[part]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
      float factor = rows[r * row + k * stride];
#pragma GCC unroll 2
      for (int part = 0; part < PARTS; part++) sums[r][part] += factor * line[part];
    }
  }
}

// `count` changed tiles, of C numbers in panels that lie `tiles` lines apart, by C lines of a kernel.
INLINE void multiply_tiles(const float *changed, long tiles, long count, const float *lines, long channels, float *products) {
  vector sums[ROWS][PARTS] = {0};
  for (long c = 0; c < channels; c += LANES)
    add_products(changed + c * tiles, LANES, count, lines + c * LANES, least(LANES, channels - c), 1, sums);
  store_sums(sums, count, products);
}

// Changed tiles, 36 x panels of C x tiles x 16, by a changed kernel, 36 x panels of D x C x 16 -> 36 x panels of D x tiles x 16. The
// number of tiles is even.
void winograd_multiply(const float *changed, const float *kernel, float *products, long tiles, long channels, long channels_out,
                       long threads) {
  long in = panels(channels), out = panels(channels_out);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < PLACES * out; work++) {
    const float *lines = kernel + work * channels * LANES, *from = changed + work / out * in * tiles * LANES;
    float *to = products + work * tiles * LANES;
    long tile = 0;
    for (; tile + ROWS <= tiles; tile += ROWS)
      multiply_tiles(from + tile * LANES, tiles, ROWS, lines, channels, to + tile * LANES);
    for (; tile < tiles; tile += 2) multiply_tiles(from + tile * LANES, tiles, 2, lines, channels, to + tile * LANES);
  }
}

// Adds to `count` lines of the gradient of a changed kernel the sums over all tiles.
INLINE void add_gradient(const float *changed, long count, const float *lines, long tiles, float *to) {
  vector sums[ROWS][PARTS];
  load_sums(to, count, sums);
  add_products(changed, 1, count, lines, tiles, LANES, sums);
  store_sums(sums, count, to);
}

// Adds to the gradient of a changed kernel, 36 x panels of D x C x 16 with C filled up to a multiple of 16, the sums over tiles of the
// changed input, 36 x panels of C x tiles x 16, times the changed gradient of the output, 36 x panels of D x tiles x 16.
void winograd_add_gradient(const float *changed, const float *gradient, float *of_kernel, long tiles, long channels,
                           long channels_out, long threads) {
  enum { REST = LANES % ROWS };
  long in = panels(channels), out = panels(channels_out);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < PLACES * out; work++) {
    const float *lines = gradient + work * tiles * LANES, *from = changed + work / out * in * tiles * LANES;
    for (long panel = 0; panel < in; panel++, from += tiles * LANES) {
      float *to = of_kernel + (work * in + panel) * LANES * LANES;
      for (long c = 0; c + ROWS <= LANES; c += ROWS) add_gradient(from + c, ROWS, lines, tiles, to + c * LANES);
      if (REST) add_gradient(from + LANES - REST, REST, lines, tiles, to + (LANES - REST) * LANES);
    }
  }
}

#endif
