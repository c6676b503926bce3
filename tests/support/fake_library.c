/* Stands between telly and the real ONNX Runtime: offers cards that this machine does not have, computes on the
 * CPU what they are given, writes down what it was asked for, and fails where it is told to. What it is to do
 * comes in FAKE_* variables; `fake_library.rs` compiles it, and says there what they mean.
 *
 * OrtApi is a table of functions: SLOT_X is the place of X in it, SLOTS their number. */

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void Status; /* null when all is well */

typedef struct {
  const void *const *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
} ApiBase;

static const ApiBase *real_base;
static const void *const *real;
static const void *table[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What options were made for, and the card of each session. */
typedef struct {
  int card;
} Options;
static __thread int next_card = -1;
static struct {
  const void *session;
  int card;
} sessions[64];
static int session_count;
static int runs;
/* Of the input that was bound last: binding and running happen on one thread. */
static __thread long bound_tokens;

static long variable(const char *name, long otherwise) {
  const char *value = getenv(name);
  return value && *value ? atol(value) : otherwise;
}

static void note(const char *line) {
  const char *path = getenv("FAKE_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s\n", line);
  fclose(file);
}

static Status *fails(const char *words) {
  enum { RUNTIME_EXCEPTION = 6 };
  return ((Status * (*)(int, const char *)) real[SLOT_CreateStatus])(RUNTIME_EXCEPTION, words);
}

/* Rows times length of a tensor. */
static long tokens_of(const void *value) {
  void *info;
  size_t count = 0;
  int64_t sizes[8] = {0};
  if (((Status * (*)(const void *, void **)) real[SLOT_GetTensorTypeAndShape])(value, &info)) abort();
  if (((Status * (*)(const void *, size_t *)) real[SLOT_GetDimensionsCount])(info, &count) || count > 8) abort();
  if (((Status * (*)(const void *, int64_t *, size_t)) real[SLOT_GetDimensions])(info, sizes, count)) abort();
  ((void (*)(void *))real[SLOT_ReleaseTensorTypeAndShapeInfo])(info);
  return sizes[0] * sizes[1];
}

/* Null if the run may go on. */
static Status *before_run(const void *session, long tokens) {
  char line[256];
  pthread_mutex_lock(&lock);
  int card = -1, run = ++runs;
  for (int place = 0; place < session_count; place++)
    if (sessions[place].session == session) card = sessions[place].card;
  snprintf(line, sizeof line, "run card=%d tokens=%ld", card, tokens);
  note(line);
  pthread_mutex_unlock(&lock);
  if (run == variable("FAKE_FAIL_AT", 0))
    return fails("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=fake");
  if (tokens > variable("FAKE_ROOM", 1L << 40))
    return fails("Non-zero status code returned while running MatMul node. Name:'fake' Status Message: "
                 "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 3221225472");
  return NULL;
}

static Status *run(void *session, const void *options, const char *const *names, const void *const *inputs,
                   size_t input_count, const char *const *output_names, size_t output_count, void **outputs) {
  Status *failure = before_run(session, tokens_of(inputs[0]));
  if (failure) return failure;
  return ((Status * (*)(void *, const void *, const char *const *, const void *const *, size_t, const char *const *,
                        size_t, void **)) real[SLOT_Run])(session, options, names, inputs, input_count, output_names,
                                                          output_count, outputs);
}

static Status *run_with_binding(void *session, const void *options, const void *binding) {
  Status *failure = before_run(session, bound_tokens);
  if (failure) return failure;
  return ((Status * (*)(void *, const void *, const void *)) real[SLOT_RunWithBinding])(session, options, binding);
}

static Status *bind_input(void *binding, const char *name, const void *value) {
  bound_tokens = tokens_of(value);
  return ((Status * (*)(void *, const char *, const void *)) real[SLOT_BindInput])(binding, name, value);
}

/* There is no pinned memory here: the CPU's own takes its place. */
static const void *really(const void *info) {
  static void *cpu;
  const char *name;
  if (((Status * (*)(const void *, const char **)) real[SLOT_MemoryInfoGetName])(info, &name)) abort();
  if (strcmp(name, "CudaPinned") != 0) return info;
  pthread_mutex_lock(&lock);
  enum { DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0 };
  if (!cpu && ((Status * (*)(const char *, int, int, int, void **)) real[SLOT_CreateMemoryInfo])(
                  "Cpu", DEVICE_ALLOCATOR, 0, DEFAULT_MEMORY, &cpu))
    abort();
  pthread_mutex_unlock(&lock);
  return cpu;
}

static Status *bind_output_to_device(void *binding, const char *name, const void *info) {
  if (really(info) != info) note("output pinned");
  return ((Status * (*)(void *, const char *, const void *)) real[SLOT_BindOutputToDevice])(binding, name,
                                                                                            really(info));
}

static Status *create_allocator(const void *session, const void *info, void **out) {
  if (really(info) != info && getenv("FAKE_NO_PINNED")) return fails("No requested allocator available");
  return ((Status * (*)(const void *, const void *, void **)) real[SLOT_CreateAllocator])(session, really(info), out);
}

static Status *available(char ***out, int *count) {
  static char *names[] = {"TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"};
  int first = variable("FAKE_TENSORRT", 0) ? 0 : variable("FAKE_CARDS", 0) ? 1 : 2;
  *out = names + first;
  *count = 3 - first;
  return NULL;
}

static Status *release_available(char **names, int count) {
  (void)names, (void)count;
  return NULL;
}

static Status *create_options(void **out) {
  *out = calloc(1, sizeof(Options));
  return NULL;
}

static void release_options(void *options) { free(options); }

static Status *update(const char *provider, Options *options, const char *const *keys, const char *const *values,
                      size_t count) {
  char line[1024];
  size_t length = snprintf(line, sizeof line, "%s", provider);
  for (size_t place = 0; place < count; place++) {
    length += snprintf(line + length, sizeof line - length, " %s=%s", keys[place], values[place]);
    if (strcmp(keys[place], "device_id") == 0) options->card = atoi(values[place]);
  }
  note(line);
  return NULL;
}

static Status *update_cuda(void *options, const char *const *keys, const char *const *values, size_t count) {
  return update("cuda", options, keys, values, count);
}

static Status *update_tensorrt(void *options, const char *const *keys, const char *const *values, size_t count) {
  return update("tensorrt", options, keys, values, count);
}

static Status *append(void *session_options, const Options *options) {
  (void)session_options;
  if (options->card >= variable("FAKE_CARDS", 0))
    return fails("CUDA failure 101: invalid device ordinal ; GPU=0 ; hostname=fake ; expr=cudaSetDevice(info_.device_id);");
  next_card = options->card;
  return NULL;
}

static Status *create_session(const void *environment, const void *model, size_t length, const void *options,
                              void **out) {
  Status *status = ((Status * (*)(const void *, const void *, size_t, const void *, void **))
                        real[SLOT_CreateSessionFromArray])(environment, model, length, options, out);
  if (!status && next_card >= 0 && session_count < 64) {
    sessions[session_count].session = *out;
    sessions[session_count++].card = next_card;
  }
  next_card = -1;
  return status;
}

static const void *const *get_api(uint32_t version) {
  real = real_base->get_api(version);
  if (!real) return NULL;
  memcpy(table, real, sizeof table);
  table[SLOT_Run] = run;
  table[SLOT_RunWithBinding] = run_with_binding;
  table[SLOT_BindInput] = bind_input;
  table[SLOT_BindOutputToDevice] = bind_output_to_device;
  table[SLOT_CreateAllocator] = create_allocator;
  table[SLOT_CreateSessionFromArray] = create_session;
  table[SLOT_GetAvailableProviders] = available;
  table[SLOT_ReleaseAvailableProviders] = release_available;
  table[SLOT_CreateCUDAProviderOptions] = create_options;
  table[SLOT_UpdateCUDAProviderOptions] = update_cuda;
  table[SLOT_ReleaseCUDAProviderOptions] = release_options;
  table[SLOT_SessionOptionsAppendExecutionProvider_CUDA_V2] = append;
  table[SLOT_CreateTensorRTProviderOptions] = create_options;
  table[SLOT_UpdateTensorRTProviderOptions] = update_tensorrt;
  table[SLOT_ReleaseTensorRTProviderOptions] = release_options;
  table[SLOT_SessionOptionsAppendExecutionProvider_TensorRT_V2] = append;
  return table;
}

static const char *get_version(void) { return real_base->get_version(); }

const ApiBase *OrtGetApiBase(void) {
  static const ApiBase base = {get_api, get_version};
  void *library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    abort();
  }
  real_base = ((const ApiBase *(*)(void))dlsym(library, "OrtGetApiBase"))();
  return &base;
}
