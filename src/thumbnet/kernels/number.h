// The numbers that maps and matrices hold: bfloat16, the upper half of a float, or where FLOAT is defined float itself.

#ifndef NUMBER
#define NUMBER

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE long smaller(long a, long b) { return a < b ? a : b; }

INLINE long larger(long a, long b) { return a > b ? a : b; }

INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

INLINE float of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

#ifdef FLOAT

typedef float number;

INLINE float wide(number value) { return value; }

INLINE number narrow(float value) { return value; }

#else

typedef uint16_t bf16;
typedef bf16 number;

INLINE float wide(number value) { return of_bits((uint32_t)value << 16); }

INLINE number narrow(float value) {  // to the nearest, ties to even
  uint32_t bits = bits_of(value);
  return (number)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#endif

// What a loop over a map reads and writes next, into the caches. The processor would do so by itself, but not beside much arithmetic,
// and not as far ahead as memory is away (docs/findings.md).
enum { DISTANCE = 2048, CACHE_LINE = 64 };  // bytes

INLINE void fetch(const void *from, long bytes) {
  for (const char *at = (const char *)from + DISTANCE, *end = at + bytes; at < end; at += CACHE_LINE) __builtin_prefetch(at, 0, 2);
}

INLINE void fetch_to_write(const void *to, long bytes) {
  for (const char *at = (const char *)to + DISTANCE, *end = at + bytes; at < end; at += CACHE_LINE) __builtin_prefetch(at, 1, 2);
}

#endif
