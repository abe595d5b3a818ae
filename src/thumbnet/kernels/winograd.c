// What a convolution with a kernel of 3 x 3 or 2 x 2 taps needs when it is computed by tiles (Winograd); see winograd.py. How a map
// is cut into tiles is in tiling.h, what one instruction multiplies in elements.h, how tiles are changed and back in changes.h and,
// along one side, in points.h. Here kernels are changed, and all is multiplied.
//
// With 3 x 3 taps an output of 6 x 6 pixels depends on 8 x 8 of the input. Both, and the kernel, are changed into 64 numbers of
// which only those at the same place meet, instead of 9 taps for each of 36 pixels: 64 multiplications where there were 324
// (Lavin & Gray 2016, https://arxiv.org/abs/1509.09308, section 4). Along one side the eight places are values of polynomials at
// points (points.h). So a tile of n pixels along a side, fewer than 6 at the edge of a map, needs n + taps - 1 places, the first
// ones and the last, and meets the same changed kernel. Where tiles of 4 pixels (`step`) need as few for a whole map, as for 7,
// they are taken: fewer places are read, and each for more tiles. In bf16 all tiles are of 4 pixels, with 36 places.
//
// Maps are channels last. Everything else lies in lines of 16 elements. What is multiplied by one instruction is an element: a
// float, or in bf16 two numbers, whose products go into one sum. The two are channels of two panels of 16, c and c + 16, or,
// where the sum is over tiles, those of two tiles. So a line holds 16 or 32 channels of a tile, or 16 of two, and what was
// changed is places x panels x tiles x 16 elements (a line more for each place where that is an even number of lines), a kernel
// places x panels of D x C x 16, products places x panels of D x tiles x 16 floats: each place is a matrix product whose operands
// are read in the order they lie.
//
// Where pooling by 2 x 2 follows, only what it leaves is written, and `chosen`: which of the four was the largest (0 to 3, the
// first of equals; a NaN is the largest of all). Else `chosen` is NULL.

#include "number.h"

#if defined FLOAT || (defined __AVX512BF16__ && defined __AVX512VL__)

#include <omp.h>

#include "changes.h"

// Rows of a product that fit the registers beside two operands.
#ifdef __AVX512F__
enum { ROWS = 8 };
#else
enum { ROWS = 6 };
#endif

// Where the tap of a kernel, D C taps, lies. `turned`: the kernel of the gradient of the input, whose outputs are C, turned
// round.
INLINE long tap_at(long out, long in, long tap, long count, long channels, long turned) {
  return turned ? (in * channels + out + 1) * count - 1 - tap : (out * channels + in) * count + tap;
}

// Sixteen outputs of an input of a kernel D C taps, at places `stream` numbers apart; nothing of an input that is not there.
INLINE void change_taps(const float *kernel, long first, long outputs, long in, long channels, long turned, long taps, long step,
                        float *to, long stream) {
  lanes k[3 * REACH] = {0}, half[PLACES];
  for (long lane = 0; lane < smaller(LANES, outputs - first); lane++)
    for (long i = 0; i < taps; i++)
      for (long j = 0; j < taps; j++)
        k[i * REACH + j][lane] = kernel[tap_at(first + lane, in, i * taps + j, taps * taps, channels, turned)];
  for (long j = 0; j < 3; j++) of_taps(k[j], REACH * LANES, half[j], REACH * LANES, taps);
  for (long i = 0; i < REACH; i++)
    if (has_place(step, taps, i)) of_taps(half[i * REACH], LANES, to + i * REACH * stream, stream, taps);
}

// A kernel D C taps -> places x panels of D x C x 16, of which tiles of `step` pixels meet; `turned` -> places x panels of C x D
// x 16. `channels`: its C.
static void change_kernel(const float *kernel, element *to, long outputs, long inputs, long channels, long turned, long taps,
                          long step, long threads) {
  long out = panels(outputs), in = elements(inputs), stream = out * in * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < out * in; work++) {
    long first = work / in * LANES, input = work % in / LANES * LANES * TERMS + work % in % LANES;
#ifdef FLOAT
    change_taps(kernel, first, outputs, input, channels, turned, taps, step, to + work * LANES, stream);
#else
    lanes low[PLACES] = {0}, high[PLACES] = {0};
    change_taps(kernel, first, outputs, input, channels, turned, taps, step, low[0], LANES);
    if (input + LANES < inputs)
      change_taps(kernel, first, outputs, input + LANES, channels, turned, taps, step, high[0], LANES);
    for (long place = 0; place < PLACES; place++) store_pairs(low[place], high[place], to + place * stream + work * LANES);
#endif
  }
}

// The gradient of a changed kernel, places x panels of D x C x 16 with C filled up to a multiple of 16 -> that of the kernel, D C
// taps.
static void change_kernel_back(const float *changed, float *kernel, long channels_out, long channels, long taps, long threads) {
  long out = panels(channels_out), lines = panels(channels) * LANES, stream = out * lines * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long panel = 0; panel < out; panel++)
    for (long c = 0; c < channels; c++) {
      lanes half[PLACES], whole[PLACES];
      const float *from = changed + (panel * lines + c) * LANES;
      for (long j = 0; j < REACH; j++) of_places(from + j * stream, REACH * stream, half[j], REACH * LANES, taps);
      for (long i = 0; i < taps; i++) of_places(half[i * REACH], LANES, whole[i * REACH], LANES, taps);
      for (long lane = 0; lane < smaller(LANES, channels_out - panel * LANES); lane++)
        for (long i = 0; i < taps; i++)
          for (long j = 0; j < taps; j++)
            kernel[tap_at(panel * LANES + lane, c, i * taps + j, taps * taps, channels, 0)] = whole[i * REACH + j][lane];
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

// Adds to `count` rows of sums, at most ROWS: to each, `length` elements of a row, `stride` apart, times as many lines of
// `other`.
INLINE void add_products(const element *rows, long row, long count, const element *other, long length, long stride,
                         vector sums[ROWS][PARTS]) {
  for (long k = 0; k < length; k++) {
    factors line[PARTS];
#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
      line[part] = ((const factors *)(other + k * LANES))[part];
      IN_REGISTER(line[part]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
      element factor = rows[r * row + k * stride];
#pragma GCC unroll 2
      for (int part = 0; part < PARTS; part++) sums[r][part] = add_product(sums[r][part], factor, line[part]);
    }
  }
}

// `count` changed tiles, their lines `tiles` apart, by `length` lines of a kernel.
INLINE void multiply_tiles(const element *changed, long tiles, long count, const element *lines, long length, float *products) {
  vector sums[ROWS][PARTS] = {0};
  for (long c = 0; c < length; c += LANES)
    add_products(changed + c * tiles, LANES, count, lines + c * LANES, smaller(LANES, length - c), 1, sums);
  store_sums(sums, count, products);
}

// Changed tiles, places x lines of C x tiles x 16, by a changed kernel, places x panels of D x C x 16 -> places x panels of D x
// tiles x 16. Where fewer than ROWS tiles are left, the last ROWS are multiplied, some of them once more.
static void multiply(const element *changed, const element *kernel, float *products, map m, long channels, long channels_out,
                     long threads) {
  long tiles = tiles_of(m), out = panels(channels_out), length = elements(channels);
  long stream = stream_of(changed_lines(m, channels, PANELS)), stream_out = stream_of(out * tiles);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long work = 0; work < PLACES * out; work++) {
    const element *lines = kernel + work * length * LANES, *from = changed + work / out * stream;
    float *to = products + work / out * stream_out + work % out * tiles * LANES;
    range all = tiles_with(m, work / out);
    long left = all.to - all.from;
    for (long index = all.from; left >= ROWS; index += ROWS, left -= ROWS)
      multiply_tiles(from + index * LANES, tiles, ROWS, lines, length, to + index * LANES);
    if (left && all.to - all.from >= ROWS)
      multiply_tiles(from + (all.to - ROWS) * LANES, tiles, ROWS, lines, length, to + (all.to - ROWS) * LANES);
    else
      for (long index = all.to - left; index < all.to; index++)
        multiply_tiles(from + index * LANES, tiles, 1, lines, length, to + index * LANES);
  }
}

// Adds to `count` lines of the gradient of a changed kernel, or with `first` to nothing, the sums over `length` lines of tiles.
INLINE void add_gradient(const element *changed, long count, const element *lines, long length, int first, float *to) {
  vector sums[ROWS][PARTS] = {0};
  if (!first) load_sums(to, count, sums);
  add_products(changed, 1, count, lines, length, LANES, sums);
  store_sums(sums, count, to);
}

// Adds to the gradient of a changed kernel, places x panels of D x C x 16 with C filled up to a multiple of 16, the sums over
// tiles of the changed input, places x panels of C x tiles x 16, times the changed gradient of the output, places x panels of D x
// tiles x 16, whose elements are of tiles. With `first` there is nothing yet.
static void add_gradients(const element *changed, const element *gradient, float *of_kernel, int first, map m, long channels,
                          long channels_out, long threads) {
  enum { REST = LANES % ROWS };
  long in = panels(channels), out = panels(channels_out), lines_of_panel = (tiles_of(m) + TERMS - 1) / TERMS;
  long stream = stream_of(changed_lines(m, channels, TILES)), stream_out = stream_of(changed_lines(m, channels_out, TILES));
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long work = 0; work < PLACES * out; work++) {
    range all = tiles_with(m, work / out);
    if (all.from == all.to) {
      if (first) memset(of_kernel + work * in * LANES * LANES, 0, (size_t)(in * LANES * LANES) * sizeof(float));
      continue;
    }
    long begin = all.from / TERMS, length = (all.to + TERMS - 1) / TERMS - begin;
    const element *lines = gradient + work / out * stream_out + (work % out * lines_of_panel + begin) * LANES;
    const element *from = changed + work / out * stream + begin * LANES;
    for (long panel = 0; panel < in; panel++, from += lines_of_panel * LANES) {
      float *to = of_kernel + (work * in + panel) * LANES * LANES;
      for (long c = 0; c + ROWS <= LANES; c += ROWS) add_gradient(from + c, ROWS, lines, length, first, to + c * LANES);
      if (REST) add_gradient(from + LANES - REST, REST, lines, length, first, to + (LANES - REST) * LANES);
    }
  }
}

// A convolution's maps in and out, that of the output for one image.
typedef struct {
  source x;
  number *y;
  uint8_t *of_y;
  long channels_out;
  map out;
} convolution;

// `count` images from the `first` one on.
static void convolve_images(convolution m, const element *changed_kernel, element *changed, float *products, long first,
                            long count, long threads) {
  map out = m.out;
  out.images = count;
  long y = first * out.rows * out.columns * m.channels_out / (m.of_y ? 4 : 1);
  change(from_image(m.x, first), changed, out, PANELS, threads);
  multiply(changed, changed_kernel, products, out, m.x.channels, m.channels_out, threads);
  change_products_back(products, m.y + y, m.of_y ? m.of_y + y : NULL, out, m.channels_out, threads);
}

// x: N H W C, convolved by `kernel`, D C taps x taps (`turned`: by that of the gradient of the input, whose outputs are C) -> y:
// N H' W' D, H' and W' being `rows` and `columns`, in tiles of `step` pixels. The kernel is changed into `changed_kernel`.
// `teams` threads have a part of `changed` and `products` each for `at_once` images, where none waits for another or takes lines
// from its cache; 1: all threads share one, for few images. Given `of_x`, x was pooled, and it was chosen; given `of_y`, y is to
// be.
void winograd_convolve(const number *x, const uint8_t *of_x, const float *kernel, number *y, uint8_t *of_y, element *changed,
                       element *changed_kernel, float *products, long images, long at_once, long teams, long height, long width,
                       long channels, long rows, long columns, long step, long channels_out, long padding, long turned, long taps,
                       long threads) {
  map part = {at_once, rows, columns, taps, step};
  convolution m = {{x, of_x, height, width, channels, padding, 0}, y, of_y, channels_out, part};
  change_kernel(kernel, changed_kernel, channels_out, channels, turned ? channels_out : channels, turned, taps, step,
                threads);
  if (teams == 1) {
    for (long n = 0; n < images; n += at_once)
      convolve_images(m, changed_kernel, changed, products, n, smaller(at_once, images - n), threads);
    return;
  }
  long room = PLACES * stream_of(changed_lines(part, channels, PANELS));
  long room_out = PLACES * stream_of(panels(channels_out) * tiles_of(part));
#pragma omp parallel for num_threads(teams) schedule(dynamic)
  for (long n = 0; n < images; n += at_once) {
    long own = omp_get_thread_num();
    convolve_images(m, changed_kernel, changed + own * room, products + own * room_out, n, smaller(at_once, images - n), 1);
  }
}

// What the gradient of a kernel is summed from: two maps, their images in `groups` that have a sum each in `total`, and room in
// which a team changes `at_once` of them.
typedef struct {
  source x, output;
  map part;
  element *changed, *of_output;
  float *total;
  long images, at_once, groups;
} gradients;

// Numbers of a sum: places x panels of D x C x 16 with C filled up to a multiple of 16.
static long sums_of(gradients g) { return PLACES * panels(g.output.channels) * panels(g.x.channels) * LANES * LANES; }

// The sum of a group, by one `team` of so many threads.
static void sum_group(gradients g, long group, long team, long threads) {
  element *changed = g.changed + team * PLACES * stream_of(changed_lines(g.part, g.x.channels, TILES));
  element *of_output = g.of_output + team * PLACES * stream_of(changed_lines(g.part, g.output.channels, TILES));
  long first = g.images * group / g.groups, end = g.images * (group + 1) / g.groups;
  map m = g.part;
  for (long n = first; n < end; n += g.at_once) {
    m.images = smaller(g.at_once, end - n);
    change(from_image(g.x, n), changed, m, TILES, threads);
    change(from_image(g.output, n), of_output, m, TILES, threads);
    add_gradients(changed, of_output, g.total + group * sums_of(g), n == first, m, g.x.channels, g.output.channels, threads);
  }
}

// Adds `groups` rows of `count` numbers to the first, in their order.
static void add_up(float *rows, long groups, long count, long threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
  for (long k = 0; k < count; k++)
    for (long group = 1; group < groups; group++) rows[k] += rows[group * count + k];
}

// The gradient of the kernel, D C taps x taps, from x: N H W C and the gradient of the output, N H' W' D, pooled where `chosen`.
// `groups` of the images have a sum each in `total`, groups x places x panels of D x C x 16 with C filled up to a multiple of 16,
// whatever the number of threads. `teams` threads take a group each, with a part of `changed` and `of_output` of their own;
// 1: all threads share each.
void winograd_kernel_gradient(const number *x, const number *gradient, const uint8_t *chosen, float *of_kernel, element *changed,
                              element *of_output, float *total, long images, long at_once, long groups, long teams, long height,
                              long width, long channels, long rows, long columns, long step, long channels_out, long padding,
                              long taps, long threads) {
  source input = {x, NULL, height, width, channels, padding, 0}, output = {gradient, chosen, rows, columns, channels_out, 0, 1};
  map part = {at_once, rows, columns, taps, step};
  gradients g = {input, output, part, changed, of_output, total, images, at_once, groups};
  // Not one parallel loop for both: within another, be it of one thread, each begins threads anew, which takes milliseconds.
  if (teams == 1) {
    for (long group = 0; group < groups; group++) sum_group(g, group, 0, threads);
  } else {
#pragma omp parallel for num_threads(teams) schedule(dynamic)
    for (long group = 0; group < groups; group++) sum_group(g, group, omp_get_thread_num(), 1);
  }
  add_up(total, groups, sums_of(g), threads);
  change_kernel_back(total, of_kernel, channels_out, channels, taps, threads);
}

#endif
