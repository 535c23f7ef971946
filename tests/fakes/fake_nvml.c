/* A libnvidia-ml.so.1 without a GPU: just what nvidia-ml-py calls for vllama, over a folder of files.
 *
 * FAKE_NVML names the folder (fake_gpu.py writes it):
 *   broken             NVML's number of the error that nvmlInit ends with
 *   gpuN/              a GPU: uuid, name, total, reserved (bytes), pids/PID ("held late": bytes), lost
 *   gpuN/migM/         a MIG device of it, the same files: MIG mode is on where there is one
 *   hide_pids          NVML shows no process, as in a container
 *   no_pid_bytes       NVML shows processes, but not what they hold
 *   old                a driver that does not know nvmlDeviceGetMemoryInfo_v2
 *   hold               memory that was given back is still counted: of the living (late) and of the dead (all)
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15
};
enum { GPUS_MAX = 16, MIGS_MAX = 7, PATH_MAX_ = 1024 };

typedef struct { char path[PATH_MAX_]; char parent[PATH_MAX_]; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute; } Process;

static Device gpus[GPUS_MAX], migs[GPUS_MAX * MIGS_MAX];
static int initialized;

static const char *folder(void) { const char *path = getenv("FAKE_NVML"); return path ? path : "/nonexistent"; }

static int there(const char *base, const char *name) {
    char path[PATH_MAX_ + 64];
    snprintf(path, sizeof path, "%s/%s", base, name);
    return access(path, F_OK) == 0;
}

static int text_of(const char *base, const char *name, char *text, unsigned length) {
    char path[PATH_MAX_ + 64];
    snprintf(path, sizeof path, "%s/%s", base, name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    char *got = fgets(text, (int)length, file);
    fclose(file);
    if (!got) return 0;
    text[strcspn(text, "\n")] = 0;
    return 1;
}

static unsigned long long number(const char *base, const char *name) {
    char text[64];
    return text_of(base, name, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

static int alive(const char *pid) {
    char path[512], text[512];
    snprintf(path, sizeof path, "/proc/%s", pid);
    if (!text_of(path, "stat", text, sizeof text)) return 0;
    char *end = strrchr(text, ')');
    return end && end[2] != 'Z' && end[2] != 'X';
}

/* All that is used; into `list` (of `room`) the living processes, `found` of them. */
static unsigned long long used(const Device *device, Process *list, unsigned room, unsigned *found) {
    char path[PATH_MAX_ + 64], text[64];
    unsigned long long total = 0;
    int hold = there(folder(), "hold"), blind = there(folder(), "no_pid_bytes");
    *found = 0;
    snprintf(path, sizeof path, "%s/pids", device->path);
    DIR *dir = opendir(path);
    if (!dir) return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || !text_of(path, entry->d_name, text, sizeof text)) continue;
        char *rest;
        unsigned long long held = strtoull(text, &rest, 10), late = strtoull(rest, NULL, 10);
        if (hold) held += late;
        if (!alive(entry->d_name)) {
            total += hold ? held : 0;
            continue;
        }
        total += held;
        if (!held) continue;
        if (*found < room) {
            Process one = {(unsigned)atoi(entry->d_name), blind ? ~0ULL : held, ~0U, ~0U};
            list[*found] = one;
        }
        ++*found;
    }
    closedir(dir);
    return total;
}

static int lost(const Device *device) { return there(device->path, "lost") || there(device->parent, "lost"); }

static int check(const Device *device) {
    if (!initialized) return UNINITIALIZED;
    if (!device) return INVALID_ARGUMENT;
    return lost(device) ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int error = (int)number(folder(), "broken");
    if (!error) initialized = 1;
    return error;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) { initialized = 0; return SUCCESS; }

const char *nvmlErrorString(int error) {
    switch (error) {
    case 9: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "fake error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char name[32];
    for (*count = 0; *count < GPUS_MAX; ++*count) {
        snprintf(name, sizeof name, "gpu%u", *count);
        if (!there(folder(), name)) break;
    }
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    unsigned count;
    nvmlDeviceGetCount_v2(&count);
    if (index >= count) return INVALID_ARGUMENT;
    snprintf(gpus[index].path, PATH_MAX_, "%s/gpu%u", folder(), index);
    strcpy(gpus[index].parent, gpus[index].path);
    *device = &gpus[index];
    return check(*device);
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    int error = check(device);
    if (error) return error;
    if (there(device->path, "no_mig")) return NOT_SUPPORTED;
    *current = *pending = (unsigned)there(device->path, "mig0");
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) { *count = MIGS_MAX; return check(device); }

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **mig) {
    char name[32];
    int error = check(device);
    if (error) return error;
    snprintf(name, sizeof name, "mig%u", index);
    if (index >= MIGS_MAX || !there(device->path, name)) return NOT_FOUND;
    Device *slot = &migs[(device - gpus) * MIGS_MAX + index];
    snprintf(slot->path, PATH_MAX_, "%.900s/%s", device->path, name);
    strcpy(slot->parent, device->path);
    *mig = slot;
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device *device, char *text, unsigned length) {
    int error = check(device);
    return error ? error : text_of(device->path, "uuid", text, length) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetName(Device *device, char *text, unsigned length) {
    int error = check(device);
    return error ? error : text_of(device->path, "name", text, length) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    unsigned found;
    int error = check(device);
    if (error) return error;
    if (there(folder(), "old")) return FUNCTION_NOT_FOUND;
    memory->total = number(device->path, "total");
    memory->reserved = number(device->path, "reserved");
    memory->used = used(device, NULL, 0, &found);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    unsigned found;
    int error = check(device);
    if (error) return error;
    memory->total = number(device->path, "total");
    memory->used = used(device, NULL, 0, &found) + number(device->path, "reserved");
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *list) {
    unsigned found = 0;
    int error = check(device);
    if (error) return error;
    if (!there(folder(), "hide_pids")) used(device, list, list ? *count : 0, &found);
    int fits = found == 0 || (list && found <= *count);
    *count = found;
    return fits ? SUCCESS : INSUFFICIENT_SIZE;
}
