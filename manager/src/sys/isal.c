/* The state of ISA-L's inflate is a large struct that differs from version to version, so it is made here,
   where its header is, and Rust holds a pointer to it. See isal.rs. */

#include <stdint.h>
#include <stdlib.h>

#include <isa-l/igzip_lib.h>

void *manager_isal_new(void) {
  struct inflate_state *state = malloc(sizeof *state);
  if (state != NULL) {
    isal_inflate_init(state);
    state->crc_flag = ISAL_GZIP; /* header and checksum are read and checked */
  }
  return state;
}

void manager_isal_reset(struct inflate_state *state) {
  isal_inflate_reset(state);
  state->crc_flag = ISAL_GZIP;
}

void manager_isal_free(struct inflate_state *state) { free(state); }

/* Inflates from *input bytes at `in` to *output bytes at `out`, and puts how much of each was used there.
   Returns ISA-L's code: 0, or below 0 for an error. *ended is 1 at the end of a member. */
int manager_isal_step(struct inflate_state *state, const uint8_t *in, uint32_t *input, uint8_t *out,
                      uint32_t *output, int *ended) {
  state->next_in = (uint8_t *)in;
  state->avail_in = *input;
  state->next_out = out;
  state->avail_out = *output;
  int code = isal_inflate(state);
  *input -= state->avail_in;
  *output -= state->avail_out;
  *ended = state->block_state == ISAL_BLOCK_FINISH;
  return code;
}
