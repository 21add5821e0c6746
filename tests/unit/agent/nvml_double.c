/* A stand-in for libnvidia-ml and libcuda, one library for both: two GPUs, which NVML and CUDA count in opposite order.

   Names, arguments, units, structs and error numbers are those of NVIDIA's NVML API reference and CUDA driver API; a
   board's power is constant, and its energy counter, beyond 32 bits, moves every NVML_DOUBLE_UPDATE_MS.
   NVML_DOUBLE_FAULT: "driver" (it is not loaded), "energy" (not supported, as before Volta), "still" (the counter does
   not move), "lost" (NVML has no GPU where CUDA's is). CUDA_VISIBLE_DEVICES counts as CUDA counts. */

#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
enum { CUDA_NO_DEVICE = 100, CUDA_INVALID_VALUE = 1, CUDA_INVALID_DEVICE = 101, CUDA_NOT_INITIALIZED = 3 };
enum { COUNT = 2, TEMPERATURE_GPU = 0, CLOCK_SM = 1 };

typedef struct { const char *name, *bus_id; unsigned milliwatts; } Gpu;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;

static const Gpu gpus[COUNT] = {
    {"NVIDIA Small", "0000:01:00.0", 40000},
    {"NVIDIA Large", "0000:21:00.0", 200000},
};
static int cuda_started;

static int fault(const char *name) {
    const char *set = getenv("NVML_DOUBLE_FAULT");
    return set && !strcmp(set, name);
}

static const Gpu *known(const void *device) {
    for (int i = 0; i < COUNT; i++)
        if (device == &gpus[i]) return &gpus[i];
    return NULL;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return fault("driver") ? DRIVER_NOT_LOADED : SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = COUNT;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, const void **device) {
    if (index >= COUNT) return INVALID_ARGUMENT;
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, const void **device) {
    for (int i = 0; i < COUNT; i++)
        if (!strcmp(bus_id, gpus[i].bus_id) && !fault("lost")) {
            *device = &gpus[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetName(const void *device, char *name, unsigned length) {
    const Gpu *gpu = known(device);
    if (!gpu) return INVALID_ARGUMENT;
    snprintf(name, length, "%s", gpu->name);
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(const void *device, unsigned *milliwatts) {
    const Gpu *gpu = known(device);
    if (!gpu) return INVALID_ARGUMENT;
    *milliwatts = gpu->milliwatts;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(const void *device, unsigned long long *millijoules) {
    const Gpu *gpu = known(device);
    struct timespec now;
    unsigned long long ms, update_ms = 20;
    if (!gpu) return INVALID_ARGUMENT;
    if (fault("energy")) return NOT_SUPPORTED;
    if (getenv("NVML_DOUBLE_UPDATE_MS")) update_ms = strtoull(getenv("NVML_DOUBLE_UPDATE_MS"), NULL, 10);
    clock_gettime(CLOCK_MONOTONIC, &now);
    ms = 1000ULL * now.tv_sec + now.tv_nsec / 1000000;
    ms = fault("still") ? 0 : ms / update_ms * update_ms;
    *millijoules = (1ULL << 40) + ms * gpu->milliwatts / 1000;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(const void *device, int sensor, unsigned *celsius) {
    if (!known(device) || sensor != TEMPERATURE_GPU) return INVALID_ARGUMENT;
    *celsius = 43;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(const void *device, int clock, unsigned *megahertz) {
    if (!known(device) || clock != CLOCK_SM) return INVALID_ARGUMENT;
    *megahertz = 1410;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(const void *device, Utilization *percent) {
    if (!known(device)) return INVALID_ARGUMENT;
    *percent = (Utilization){85, 11};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(const void *device, Memory *bytes) {
    if (!known(device)) return INVALID_ARGUMENT;
    *bytes = (Memory){8ULL << 30, 5ULL << 30, 3ULL << 30};
    return SUCCESS;
}

/* CUDA's devices: the larger GPU first, or those that CUDA_VISIBLE_DEVICES names, one digit each. */

int cuInit(unsigned flags) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (flags) return CUDA_INVALID_VALUE;
    if (visible && !*visible) return CUDA_NO_DEVICE;
    cuda_started = 1;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!cuda_started) return CUDA_NOT_INITIALIZED;
    if (ordinal != 0) return CUDA_INVALID_DEVICE;
    *device = COUNT - 1 - (visible ? atoi(visible) : 0);
    return SUCCESS;
}

int cuDeviceGetPCIBusId(char *bus_id, int length, int device) {
    if (!cuda_started) return CUDA_NOT_INITIALIZED;
    if (device < 0 || device >= COUNT || length < 13) return CUDA_INVALID_VALUE;
    snprintf(bus_id, length, "%s", gpus[device].bus_id);
    return SUCCESS;
}
