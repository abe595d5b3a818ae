// The tile registers of Intel AMX. TILES is defined where the processor has them and numbers are bf16.
//
// A tile register holds 16 rows of 64 bytes, and one instruction multiplies 16 x 32 by 32 x 16 numbers, the second operand with
// its rows in pairs.

#ifndef TILES_H
#define TILES_H

#include "pairs.h"

#if defined(PAIRS) && defined(__AMX_BF16__)

#define TILES

struct tiles {  // the layout that the processor loads; palette 1 is the only one
  uint8_t palette, start, zero[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Eight whole tiles for this thread; gives what was set up before, for `leave_tiles`.
INLINE struct tiles set_up_tiles(void) {
  struct tiles before, layout = {.palette = 1};
  for (int i = 0; i < 8; i++) layout.bytes[i] = 64, layout.rows[i] = 16;
  memset(&before, 0, sizeof(before));
  _tile_storeconfig(&before);
  __asm__ volatile("" : "+m"(before), "+m"(layout));  // gcc takes either for eight bytes
  _tile_loadconfig(&layout);
  return before;
}

// Should somebody have had tiles set up, they are found as they were.
INLINE void leave_tiles(const struct tiles *before) {
  __asm__ volatile("" ::"m"(*before));
  if (before->palette) _tile_loadconfig(before);
  else _tile_release();
}

#else

struct tiles {  // which are not there: nothing to set up
  char nothing;
};

INLINE struct tiles set_up_tiles(void) { return (struct tiles){0}; }

INLINE void leave_tiles(const struct tiles *before) { (void)before; }

#endif

#endif
