/* A stand-in for libcudart: host memory for device memory, work done at once, events by the host's clock.

   For tests of the ctypes layer: sizes, pointers, handles and statuses pass through a real shared library. Handles and
   addresses are checked, what is alive is counted, and memory over CUDART_DOUBLE_BYTES (or stand_in_limit) is refused.
   Error numbers and texts are the CUDA runtime's. */

#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, MEMORY_ALLOCATION = 2, INVALID_HANDLE = 400, NOT_READY = 600 };
enum { MOST = 4096 };
enum { DEVICE = 1, HOST = 2, STREAM = 3, EVENT = 4 };

typedef struct { int kind; size_t size; char *address; double ms; int recorded; } Thing;
static Thing things[MOST];
static size_t limit = (size_t)1 << 30, used;
static int last_error = SUCCESS; /* until it is asked for, as the runtime keeps it */

static int told(int status) {
    if (status != SUCCESS) last_error = status;
    return status;
}

static Thing *find(const void *address, int kind) {
    for (int i = 0; i < MOST; i++)
        if (things[i].kind == kind && things[i].address == address) return &things[i];
    return NULL;
}

/* The device or host memory that holds size bytes from address on. */
static Thing *around(const char *address, size_t size, int kind) {
    for (int i = 0; i < MOST; i++)
        if (things[i].kind == kind && address >= things[i].address
            && address + size <= things[i].address + things[i].size) return &things[i];
    return NULL;
}

static int make(void **made, int kind, size_t size) {
    if (!made) return INVALID_VALUE;
    if (getenv("CUDART_DOUBLE_BYTES")) limit = strtoull(getenv("CUDART_DOUBLE_BYTES"), NULL, 10);
    if (kind == DEVICE && used + size > limit) return MEMORY_ALLOCATION;
    for (int i = 0; i < MOST; i++)
        if (!things[i].kind) {
            char *address = calloc(1, size ? size : 1);
            if (!address) return MEMORY_ALLOCATION;
            things[i] = (Thing){kind, size, address, 0, 0};
            if (kind == DEVICE) used += size;
            *made = address;
            return SUCCESS;
        }
    return MEMORY_ALLOCATION;
}

static int unmake(void *address, int kind, int otherwise) {
    Thing *thing = find(address, kind);
    if (!thing) return otherwise;
    if (kind == DEVICE) used -= thing->size;
    free(thing->address);
    *thing = (Thing){0};
    return SUCCESS;
}

void stand_in_limit(size_t bytes) { limit = bytes; }
int stand_in_alive(void) {
    int alive = 0;
    for (int i = 0; i < MOST; i++) alive += things[i].kind != 0;
    return alive;
}

const char *cudaGetErrorString(int status) {
    switch (status) {
        case SUCCESS: return "no error";
        case INVALID_VALUE: return "invalid argument";
        case MEMORY_ALLOCATION: return "out of memory";
        case INVALID_HANDLE: return "invalid resource handle";
        case NOT_READY: return "device not ready";
        default: return "unrecognized error code";
    }
}

int cudaPeekAtLastError(void) { return last_error; }
int cudaGetLastError(void) {
    int found = last_error;
    last_error = SUCCESS;
    return found;
}

int cudaMalloc(void **made, size_t size) { return told(make(made, DEVICE, size)); }
int cudaFree(void *address) { return told(unmake(address, DEVICE, INVALID_VALUE)); }
int cudaMallocHost(void **made, size_t size) { return told(make(made, HOST, size)); }
int cudaFreeHost(void *address) { return told(unmake(address, HOST, INVALID_VALUE)); }

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if (!find(stream, STREAM)) return told(INVALID_HANDLE);
    if (kind == 1 && !(around(to, size, DEVICE) && around(from, size, HOST))) return told(INVALID_VALUE);
    if (kind == 2 && !(around(to, size, HOST) && around(from, size, DEVICE))) return told(INVALID_VALUE);
    if (kind != 1 && kind != 2) return told(INVALID_VALUE);
    memcpy(to, from, size);
    return SUCCESS;
}

int cudaMemGetInfo(size_t *available, size_t *total) {
    *available = limit - used;
    *total = limit;
    return SUCCESS;
}

int cudaStreamCreate(void **stream) { return told(make(stream, STREAM, 0)); }
int cudaStreamSynchronize(void *stream) { return told(find(stream, STREAM) ? SUCCESS : INVALID_HANDLE); }
int cudaStreamDestroy(void *stream) { return told(unmake(stream, STREAM, INVALID_HANDLE)); }
int cudaEventCreate(void **event) { return told(make(event, EVENT, 0)); }
int cudaEventDestroy(void *event) { return told(unmake(event, EVENT, INVALID_HANDLE)); }
int cudaEventSynchronize(void *event) { return told(find(event, EVENT) ? SUCCESS : INVALID_HANDLE); }

int cudaEventRecord(void *event, void *stream) {
    struct timespec now;
    Thing *thing = find(event, EVENT);
    if (!thing || !find(stream, STREAM)) return told(INVALID_HANDLE);
    clock_gettime(CLOCK_MONOTONIC, &now);
    thing->ms = 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
    thing->recorded = 1;
    return SUCCESS;
}

int cudaEventElapsedTime(float *ms, void *start, void *end) {
    Thing *first = find(start, EVENT), *last = find(end, EVENT);
    if (!first || !last || !first->recorded || !last->recorded) return told(INVALID_HANDLE);
    *ms = (float)(last->ms - first->ms);
    return SUCCESS;
}

/* A Nano's GPU (SM 5.3) unless CUDART_DOUBLE_SM says otherwise, such as 87. */
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    int sm = getenv("CUDART_DOUBLE_SM") ? atoi(getenv("CUDART_DOUBLE_SM")) : 53;
    if (device != 0) return told(101); /* invalid device ordinal */
    if (attribute == 75) *value = sm / 10;
    else if (attribute == 76) *value = sm % 10;
    else return told(INVALID_VALUE);
    return SUCCESS;
}
