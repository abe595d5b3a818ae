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

#endif
