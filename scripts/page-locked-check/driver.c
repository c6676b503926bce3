/* Stands in for CUDA's driver while scripts/page-locked-check.sh runs: as much of it as cudarc needs to copy to a card.
 *
 * A stream is a queue from which nothing is taken until somebody waits, so that every copy comes as late as it may. Memory of the
 * card is ordinary memory. What is new, and what has been given back, holds a pattern; page-locked memory that is given back
 * while a copy that is still to come reads from it ends the process. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, LAUNCH_FAILED = 719 };
enum { NEW_ON_CARD = 0xCD, FREED_ON_CARD = 0xDD, NEW_LOCKED = 0xFF };
/* What can be told to fail; the numbers are main.rs's too. */
enum { NOTHING, EVENT_RECORD, EVENT_SYNCHRONIZE, COPY_TO_CARD };

typedef unsigned long long Address;
typedef struct Stream Stream;

typedef struct {
  Stream *stream;
  /* Numbers of the latest record that was asked for, and of the latest that was reached. */
  uint64_t latest, reached;
} Event;

typedef struct Work {
  enum { COPY, RECORD, WAIT, FREE } kind;
  char *to, *from;
  size_t bytes;
  Event *event;
  uint64_t record;
  struct Work *next;
} Work;

struct Stream {
  Work *first, *last;
  Stream *next;
};

typedef struct Locked {
  char *start;
  size_t bytes;
  struct Locked *next;
} Locked;

static Stream *streams;
static Locked *all_locked;
static uint64_t records;
static size_t locked, most = SIZE_MAX;
static int waits, fails;
static float seen;
static void *current;

static int failing(int what) {
  if (fails != what) return 0;
  fails = NOTHING;
  return 1;
}

static void queue(Stream *stream, Work work) {
  Work *last = malloc(sizeof *last);
  *last = work;
  last->next = NULL;
  if (stream->last) stream->last->next = last;
  else stream->first = last;
  stream->last = last;
}

static void run(Stream *stream, Event *until, uint64_t record) {
  while (stream->first && !(until && until->reached >= record)) {
    Work *work = stream->first;
    stream->first = work->next;
    if (!stream->first) stream->last = NULL;
    switch (work->kind) {
      case COPY: memcpy(work->to, work->from, work->bytes); break;
      case RECORD: work->event->reached = work->record; break;
      case WAIT:
        if (work->event->reached < work->record) run(work->event->stream, work->event, work->record);
        break;
      /* Kept: what reads from it afterwards finds the pattern. */
      case FREE: memset(work->to, FREED_ON_CARD, ((size_t *)work->to)[-1]); break;
    }
    free(work);
  }
}

static int reads_from(const Work *work, const Locked *memory) {
  return work->kind == COPY && work->from >= memory->start && work->from < memory->start + memory->bytes;
}

/* For main.rs. */

void driver_fail(int what) { fails = what; }
void driver_lock_at_most(size_t bytes) { most = bytes; }
size_t driver_locked(void) { return locked; }
/* How often the host has waited for what was not done yet. */
int driver_waits(void) { return waits; }
float driver_seen(void) { return seen; }

int driver_copies_to_come(void) {
  int count = 0;
  for (Stream *stream = streams; stream; stream = stream->next)
    for (Work *work = stream->first; work; work = work->next) count += work->kind == COPY;
  return count;
}

/* A kernel that reads one number, of which no event tells. */
void driver_launch(Address number, Stream *stream) {
  queue(stream, (Work){.kind = COPY, .to = (char *)&seen, .from = (char *)(uintptr_t)number, .bytes = sizeof seen});
}

/* For cudarc. */

int cuInit(unsigned flags) { return (void)flags, OK; }
int cuDeviceGet(int *device, int number) { return *device = number, OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { return (void)attribute, (void)device, *value = 1, OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return (void)device, *context = &records, OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, OK; }
int cuCtxGetCurrent(void **context) { return *context = current, OK; }
int cuCtxSetCurrent(void *context) { return current = context, OK; }
int cuGetErrorName(int error, const char **name) { return (void)error, *name = "STANDS_IN", OK; }
int cuGetErrorString(int error, const char **words) { return *words = error == OUT_OF_MEMORY ? "out of memory" : "failed", OK; }

int cuCtxSynchronize(void) {
  for (Stream *stream = streams; stream; stream = stream->next) run(stream, NULL, 0);
  return OK;
}

int cuStreamCreate(Stream **stream, unsigned flags) {
  (void)flags;
  *stream = calloc(1, sizeof **stream);
  (*stream)->next = streams;
  streams = *stream;
  return OK;
}

int cuStreamDestroy_v2(Stream *stream) { return (void)stream, OK; }

int cuStreamSynchronize(Stream *stream) {
  waits++;
  run(stream, NULL, 0);
  return OK;
}

int cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
  (void)flags;
  if (event->stream) queue(stream, (Work){.kind = WAIT, .event = event, .record = event->latest});
  return OK;
}

int cuEventCreate(Event **event, unsigned flags) { return (void)flags, *event = calloc(1, sizeof **event), OK; }
int cuEventDestroy_v2(Event *event) { return (void)event, OK; }

int cuEventRecord(Event *event, Stream *stream) {
  if (failing(EVENT_RECORD)) return LAUNCH_FAILED;
  event->stream = stream;
  event->latest = ++records;
  queue(stream, (Work){.kind = RECORD, .event = event, .record = event->latest});
  return OK;
}

int cuEventSynchronize(Event *event) {
  if (failing(EVENT_SYNCHRONIZE)) return LAUNCH_FAILED;
  if (event->reached < event->latest) {
    waits++;
    run(event->stream, event, event->latest);
  }
  return OK;
}

int cuMemHostAlloc(void **start, size_t bytes, unsigned flags) {
  (void)flags;
  if (!bytes) return INVALID_VALUE;
  if (bytes > most - locked) return OUT_OF_MEMORY;
  Locked *memory = malloc(sizeof *memory);
  *memory = (Locked){.start = malloc(bytes), .bytes = bytes, .next = all_locked};
  memset(memory->start, NEW_LOCKED, bytes);
  all_locked = memory;
  locked += bytes;
  *start = memory->start;
  return OK;
}

int cuMemFreeHost(void *start) {
  Locked **memory = &all_locked;
  while (*memory && (*memory)->start != start) memory = &(*memory)->next;
  if (!*memory) return INVALID_VALUE;
  for (Stream *stream = streams; stream; stream = stream->next)
    for (Work *work = stream->first; work; work = work->next)
      if (reads_from(work, *memory)) {
        fputs("page-locked memory was given back while a copy reads from it\n", stderr);
        abort();
      }
  locked -= (*memory)->bytes;
  *memory = (*memory)->next;
  free(start);
  return OK;
}

int cuMemAllocAsync(Address *address, size_t bytes, Stream *stream) {
  (void)stream;
  size_t *memory = malloc(2 * sizeof *memory + bytes);
  memory[1] = bytes;
  memset(memory + 2, NEW_ON_CARD, bytes);
  *address = (uintptr_t)(memory + 2);
  return OK;
}

int cuMemFreeAsync(Address address, Stream *stream) {
  queue(stream, (Work){.kind = FREE, .to = (char *)(uintptr_t)address});
  return OK;
}

int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *stream) {
  if (failing(COPY_TO_CARD)) return LAUNCH_FAILED;
  Work work = {.kind = COPY, .to = (char *)(uintptr_t)to, .from = (char *)from, .bytes = bytes};
  int is_locked = 0;
  for (Locked *memory = all_locked; memory; memory = memory->next) is_locked |= reads_from(&work, memory);
  /* Ordinary memory is read before the call returns. */
  if (!is_locked) work.from = memcpy(malloc(bytes), from, bytes);
  queue(stream, work);
  return OK;
}

int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
  queue(stream, (Work){.kind = COPY, .to = to, .from = (char *)(uintptr_t)from, .bytes = bytes});
  return OK;
}
