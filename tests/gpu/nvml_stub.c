/* A stand-in for libnvidia-ml.so.1: it answers what a text file says (EARMARK_TEST_NVML names it), so that the real binding,
 * nvidia-ml-py, can be driven on a machine without GPUs. One fact a line; # begins a comment; GPUs count from 0 in the order of their lines:
 *
 *   gpu ADDRESS UUID MEMORY NAME    a GPU; _ in the name stands for a space
 *   affinity GPU NODE               its memory affinity
 *   link GPU LINK KIND ADDRESS      an active link to a gpu, a switch or something other; `down` is an inactive one
 *   mig GPU NOW NEXT                its MIG mode, 0 or 1 each
 *   part GPU UUID MEMORY NAME       a MIG instance
 *   error GPU CODE QUESTION         what it answers to handle, address, uuid, name, memory, affinity, mig, part, link
 *   init CODE                       what nvmlInit answers
 *   hang GPU                        it never answers (-1: nvmlInit does not)
 *   crash GPU                       the library crashes when it is asked
 *
 * Types and codes: nvml.h of the NVML API reference, release 550.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 64
#define EXPORT __attribute__((visibility("default")))
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, UNKNOWN = 999 };

typedef struct { char legacy[16]; unsigned domain, bus, device, ids, subsystem; char text[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned kind, active; unsigned domain, bus, device; } link_t;
typedef struct { char question[16]; int code; } error_t;
typedef struct thing {
    unsigned domain, bus, device;
    char uuid[96], name[96];
    unsigned long long memory;
    int node, mig, next, links, parts, errors, hangs, crashes;
    link_t link[MOST];
    struct thing *part[MOST];
    error_t error[MOST];
} thing_t;

static thing_t gpus[MOST];
static int count, init_code, init_hangs;

static int answer(const thing_t *gpu, const char *question)
{
    if (gpu->crashes)
        abort();
    while (gpu->hangs)
        pause();
    for (int each = 0; each < gpu->errors; each++)
        if (!strcmp(gpu->error[each].question, question))
            return gpu->error[each].code;
    return SUCCESS;
}

static void named(thing_t *thing, const char *uuid, unsigned long long memory, const char *name)
{
    snprintf(thing->uuid, sizeof thing->uuid, "%s", uuid);
    snprintf(thing->name, sizeof thing->name, "%s", name);
    for (char *letter = thing->name; *letter; letter++)
        if (*letter == '_')
            *letter = ' ';
    thing->memory = memory;
}

static void read_line(const char *line)
{
    char word[16], uuid[96], name[96];
    unsigned domain, bus, device;
    unsigned long long memory;
    int gpu, a, b;
    if (sscanf(line, "gpu %x:%x:%x.0 %95s %llu %95s", &domain, &bus, &device, uuid, &memory, name) == 6 && count < MOST) {
        thing_t *made = &gpus[count++];
        made->domain = domain, made->bus = bus, made->device = device, made->node = -1, made->mig = -1;
        named(made, uuid, memory, name);
    } else if (sscanf(line, "init %d", &a) == 1) {
        init_code = a;
    } else if (sscanf(line, "hang %d", &gpu) == 1) {
        if (gpu < 0)
            init_hangs = 1;
        else
            gpus[gpu % MOST].hangs = 1;
    } else if (sscanf(line, "crash %d", &gpu) == 1) {
        gpus[gpu % MOST].crashes = 1;
    } else if (sscanf(line, "affinity %d %d", &gpu, &a) == 2) {
        gpus[gpu % MOST].node = a;
    } else if (sscanf(line, "mig %d %d %d", &gpu, &a, &b) == 3) {
        gpus[gpu % MOST].mig = a, gpus[gpu % MOST].next = b;
    } else if (sscanf(line, "link %d %d %15s %x:%x:%x.0", &gpu, &a, word, &domain, &bus, &device) == 6 && a >= 0 && a < MOST) {
        thing_t *of = &gpus[gpu % MOST];
        unsigned kind = !strcmp(word, "switch") ? 2 : !strcmp(word, "other") ? 1 : 0;
        of->link[a] = (link_t){ kind, strcmp(word, "down") != 0, domain, bus, device };
        of->links = a + 1 > of->links ? a + 1 : of->links;
    } else if (sscanf(line, "part %d %95s %llu %95s", &gpu, uuid, &memory, name) == 4 && gpus[gpu % MOST].parts < MOST) {
        thing_t *made = calloc(1, sizeof *made);
        made->mig = -1, made->node = -1;
        named(made, uuid, memory, name);
        gpus[gpu % MOST].part[gpus[gpu % MOST].parts++] = made;
    } else if (sscanf(line, "error %d %d %15s", &gpu, &a, word) == 3 && gpus[gpu % MOST].errors < MOST) {
        error_t *made = &gpus[gpu % MOST].error[gpus[gpu % MOST].errors++];
        made->code = a;
        snprintf(made->question, sizeof made->question, "%s", word);
    } else if (line[0] != '#' && line[0] != '\n') {
        fprintf(stderr, "nvml stub: not understood: %s", line);
        abort();
    }
}

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    char line[512];
    const char *path = getenv("EARMARK_TEST_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    (void)flags;
    if (!file)
        return UNKNOWN;
    while (fgets(line, sizeof line, file))
        read_line(line);
    fclose(file);
    while (init_hangs)
        pause();
    return init_code;
}

EXPORT const char *nvmlErrorString(int code)
{
    (void)code;
    return "a code of the stub";
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *found)
{
    *found = (unsigned)count;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, thing_t **found)
{
    if (index >= (unsigned)count)
        return INVALID_ARGUMENT;
    *found = &gpus[index];
    return answer(&gpus[index], "handle");
}

EXPORT int nvmlDeviceGetPciInfo_v3(const thing_t *gpu, pci_t *found)
{
    memset(found, 0, sizeof *found);
    found->domain = gpu->domain, found->bus = gpu->bus, found->device = gpu->device;
    found->ids = 0x233010de, found->subsystem = 0x16c110de;
    return answer(gpu, "address");
}

static int told(const char *text, char *found, unsigned size)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(found, text);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetUUID(const thing_t *gpu, char *found, unsigned size)
{
    int code = answer(gpu, "uuid");
    return code ? code : told(gpu->uuid, found, size);
}

EXPORT int nvmlDeviceGetName(const thing_t *gpu, char *found, unsigned size)
{
    int code = answer(gpu, "name");
    return code ? code : told(gpu->name, found, size);
}

EXPORT int nvmlDeviceGetMemoryInfo(const thing_t *gpu, memory_t *found)
{
    *found = (memory_t){ gpu->memory, gpu->memory, 0 };
    return answer(gpu, "memory");
}

EXPORT int nvmlDeviceGetMemoryAffinity(const thing_t *gpu, unsigned words, unsigned long long *found, unsigned scope)
{
    int code = answer(gpu, "affinity");
    (void)scope;
    memset(found, 0, words * sizeof *found);
    if (!code && gpu->node < 0)
        return NOT_SUPPORTED;
    if (!code && gpu->node / 64 < (int)words)
        found[gpu->node / 64] |= 1ULL << gpu->node % 64;
    return code;
}

EXPORT int nvmlDeviceGetMigMode(const thing_t *gpu, unsigned *now, unsigned *next)
{
    int code = answer(gpu, "mig");
    if (!code && gpu->mig < 0)
        return NOT_SUPPORTED;
    *now = (unsigned)gpu->mig, *next = (unsigned)gpu->next;
    return code;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(const thing_t *gpu, unsigned *found)
{
    *found = 7;
    return gpu->mig < 0 ? NOT_SUPPORTED : SUCCESS;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(const thing_t *gpu, unsigned index, thing_t **found)
{
    int code = answer(gpu, "part");
    if (!code && index >= (unsigned)gpu->parts)
        return NOT_FOUND;
    *found = code ? NULL : gpu->part[index];
    return code;
}

EXPORT int nvmlDeviceGetNvLinkState(const thing_t *gpu, unsigned link, unsigned *found)
{
    int code = answer(gpu, "link");
    if (!code && !gpu->links)
        return NOT_SUPPORTED;
    if (!code && link >= (unsigned)gpu->links)
        return INVALID_ARGUMENT;
    if (!code)
        *found = gpu->link[link].active;
    return code;
}

EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(const thing_t *gpu, unsigned link, pci_t *found)
{
    memset(found, 0, sizeof *found);
    if (link >= (unsigned)gpu->links)
        return INVALID_ARGUMENT;
    found->domain = gpu->link[link].domain, found->bus = gpu->link[link].bus, found->device = gpu->link[link].device;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(const thing_t *gpu, unsigned link, unsigned *found)
{
    if (link >= (unsigned)gpu->links)
        return INVALID_ARGUMENT;
    *found = gpu->link[link].kind;
    return SUCCESS;
}
