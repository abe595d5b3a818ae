// The gradient of a convolution's kernel in the tile registers of Intel AMX; see weight_gradient.py.
//
// It is a matrix product over pixels: for each tap, output channels x pixels times pixels x input channels. Pixels are counted
// through images with zeros around them ("places"), so that a tap is a number of places between the two operands and one long
// sum runs through several images.
//
// Channels are taken 32 at a time, in the order in which the processor interleaves two vectors, and put right at the end.
// The sums do not depend on the number of threads.

#include "tiles.h"

#ifdef TILES

#include <stdlib.h>

enum {
  RANGE = 4,                 // blocks of output channels that one unit of work takes
  PLACES = 2048,             // of a chunk: then what a thread works on stays in its second cache
};

struct convolution {
  long images, height, width, channels, rows, columns, channels_out, side;  // rows x columns of the output
  long stride, period;  // places from one row, and one image, to the next
  long reach;           // the farthest tap, in places
};

static long blocks(long channels) { return (channels + BLOCK - 1) / BLOCK; }

static long least(long a, long b) { return a < b ? a : b; }

// Which channel of a block lies at a place of it, after `interleave`: the low and the high halves of each 128 bits.
static long channel_at(long place) { return place % 16 / 4 * 8 + place / 16 * 4 + place % 4; }

// Two pixels of 32 channels -> the pairs of the low halves, and of the high ones.
INLINE void interleave(__m512i first, __m512i second, __m512i *low, __m512i *high) {
  *low = _mm512_unpacklo_epi16(first, second);
  *high = _mm512_unpackhi_epi16(first, second);
}

// A block of channels of the pixels of some images, each at its place; the zeros around them are there already.
static void spread(const bf16 *from, bf16 *to, long images, long rows, long columns, long channels, long width, long stride,
                   long period) {
  __mmask32 part = width >= BLOCK ? ~(__mmask32)0 : ((__mmask32)1 << width) - 1;
  for (long n = 0; n < images; n++)
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < columns; j++)
        _mm512_store_si512(to + (n * period + i * stride + j) * BLOCK,
                           _mm512_maskz_loadu_epi16(part, from + ((n * rows + i) * columns + j) * channels));
}

// Places of 32 channels -> pairs of places in rows of 16 channels: [low, high][pairs from even, from odd places][rows].
static void pair_up(const bf16 *from, bf16 *pairs, long places) {
  for (long p = 0; p < places; p++) {
    __m512i low, high;
    interleave(_mm512_load_si512(from + p * BLOCK), _mm512_load_si512(from + (p + 1) * BLOCK), &low, &high);
    bf16 *to = pairs + (p % 2 * (places / 2) + p / 2) * BLOCK;
    _mm512_store_si512(to, low);
    _mm512_store_si512(to + places * BLOCK, high);
  }
}

// Places of 32 channels -> tiles of 16 channels x 32 places: [low, high][steps].
static void turn_all(const bf16 *placed, bf16 *turned, long steps) {
  for (long step = 0; step < steps; step++) {
    __m512i low[16], high[16];
    const bf16 *from = placed + step * BLOCK * BLOCK;
    for (int k = 0; k < 16; k++)
      interleave(_mm512_load_si512(from + 2 * k * BLOCK), _mm512_load_si512(from + (2 * k + 1) * BLOCK), low + k, high + k);
    turn(low, turned + step * TILE);
    turn(high, turned + (steps + step) * TILE);
  }
}

// sums, 32 x 32 floats in rows of `row`: what was there, unless `first`, plus the product of two times two rows of tiles.
static void multiply(const bf16 *turned, const bf16 *pairs, float *sums, long steps, long low_to_high, long row, int first) {
  const long bytes = row * (long)sizeof(float), line = BLOCK * sizeof(bf16);
  __asm__ volatile("" ::: "memory");  // gcc does not know that a tile is loaded from memory: what was stored is to be there
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, bytes);
    _tile_loadd(1, sums + 16, bytes);
    _tile_loadd(2, sums + 16 * row, bytes);
    _tile_loadd(3, sums + 16 * row + 16, bytes);
  }
  for (long step = 0; step < steps; step++) {
    _tile_loadd(4, turned + step * TILE, line);
    _tile_loadd(6, pairs + step * TILE, line);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, pairs + low_to_high + step * TILE, line);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, turned + (steps + step) * TILE, line);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, bytes);
  _tile_stored(1, sums + 16, bytes);
  _tile_stored(2, sums + 16 * row, bytes);
  _tile_stored(3, sums + 16 * row + 16, bytes);
}

static long places_of(const struct convolution *c, long images) { return (images * c->period + BLOCK - 1) / BLOCK * BLOCK; }

static bf16 *zeros(long numbers) {
  bf16 *made = aligned_alloc(64, (size_t)((numbers * (long)sizeof(bf16) + 63) / 64 * 64));
  if (made) memset(made, 0, (size_t)numbers * sizeof(bf16));
  return made;
}

struct scratch {
  bf16 *outputs, *turned, *inputs, *pairs;
};

// Images first to last, output channels from block `from` on: into sums, taps x padded channels_out x padded channels.
static void add_up(const struct convolution *c, const bf16 *x, const bf16 *gradient, float *sums, long first, long last,
                   long from, long chunk, long margin, const struct scratch *s) {
  long row = blocks(c->channels) * BLOCK, to = least(from + RANGE, blocks(c->channels_out));
  for (long n = first; n < last; n += chunk) {
    long images = least(chunk, last - n), steps = places_of(c, images) / BLOCK;
    long places = (steps * BLOCK + c->reach + 2) / 2 * 2;
    for (long d = from; d < to; d++) {
      long used = images * c->period;
      memset(s->outputs + used * BLOCK, 0, (size_t)(steps * BLOCK - used) * BLOCK * sizeof(bf16));
      spread(gradient + n * c->rows * c->columns * c->channels_out + d * BLOCK, s->outputs, images, c->rows, c->columns,
             c->channels_out, c->channels_out - d * BLOCK, c->stride, c->period);
      turn_all(s->outputs, s->turned + (d - from) * 2 * steps * TILE, steps);
    }
    for (long b = 0; b < row / BLOCK; b++) {
      spread(x + n * c->height * c->width * c->channels + b * BLOCK, s->inputs + margin * BLOCK, images, c->height, c->width,
             c->channels, c->channels - b * BLOCK, c->stride, c->period);
      pair_up(s->inputs, s->pairs, places);
      for (long d = from; d < to; d++)
        for (long tap = 0; tap < c->side * c->side; tap++) {
          long shift = tap / c->side * c->stride + tap % c->side, odd = shift % 2;
          multiply(s->turned + (d - from) * 2 * steps * TILE, s->pairs + (odd * (places / 2) + shift / 2) * BLOCK,
                   sums + (tap * blocks(c->channels_out) + d) * BLOCK * row + b * BLOCK, steps, places * BLOCK, row, n == first);
        }
    }
  }
}

// Floats to work in for `groups` parts of the batch.
long weight_gradient_sums(long channels, long channels_out, long side, long groups, long threads) {
  (void)threads;
  return groups * side * side * blocks(channels_out) * BLOCK * blocks(channels) * BLOCK;
}

// x: N H W C, gradient of the output: N H' W' D, both bf16 -> that of the kernel, D C S S floats, padded by `padding`.
// sums: groups x S S x padded D x padded C, one part for each group of images. Gives 0, or 1 where memory is missing.
long weight_gradient(const bf16 *x, const bf16 *gradient, float *sums, float *result, long images, long height, long width,
                     long channels, long channels_out, long side, long padding, long groups, long threads) {
  struct convolution c = {images, height, width, channels, height + 2 * padding - side + 1, width + 2 * padding - side + 1,
                          channels_out, side, width + padding, 0, 0};
  c.period = (height + padding) * c.stride;
  c.reach = (side - 1) * (c.stride + 1);
  long chunk = least((images + groups - 1) / groups, PLACES / c.period), margin = padding * (c.stride + 1);
  if (chunk < 1) chunk = 1;
  long most = places_of(&c, chunk), ranges = (blocks(channels_out) + RANGE - 1) / RANGE, failed = 0;
  long taps = side * side, row = blocks(channels) * BLOCK, part = taps * blocks(channels_out) * BLOCK * row;
#pragma omp parallel num_threads(threads)
  {
    struct scratch s = {zeros(most * BLOCK), zeros(RANGE * 2 * most / BLOCK * TILE), zeros((most + c.reach + margin + 4) * BLOCK),
                        zeros(2 * (most + c.reach + 4) * BLOCK)};
    struct tiles before = set_up_tiles();
    if (!s.outputs || !s.turned || !s.inputs || !s.pairs) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
    if (!failed) {
#pragma omp for schedule(dynamic)
      for (long unit = 0; unit < groups * ranges; unit++) {
        long group = unit / ranges;
        add_up(&c, x, gradient, sums + group * part, images * group / groups, images * (group + 1) / groups,
               unit % ranges * RANGE, chunk, margin, &s);
      }
#pragma omp for schedule(static)
      for (long d = 0; d < channels_out; d++) {
        long at_row = d / BLOCK * BLOCK;
        while (channel_at(at_row % BLOCK) != d % BLOCK) at_row++;
        for (long b = 0; b < channels; b += BLOCK)
          for (long tap = 0; tap < taps; tap++) {
            float total[BLOCK] = {0};
            const float *from = sums + (tap * blocks(channels_out) * BLOCK + at_row) * row + b;
            for (long group = 0; group < groups; group++)
              for (long k = 0; k < BLOCK; k++) total[k] += from[group * part + k];
            for (long k = 0; k < BLOCK; k++) {
              long channel = b + channel_at(k);
              if (channel < channels) result[(d * channels + channel) * taps + tap] = total[k];
            }
          }
      }
    }
    leave_tiles(&before);
    free(s.outputs), free(s.turned), free(s.inputs), free(s.pairs);
  }
  return failed;
}

#endif
