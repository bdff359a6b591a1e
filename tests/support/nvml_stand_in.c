/* A stand-in for NVIDIA's management library, libnvidia-ml.so.1: the functions that the binding `nvidia-ml-py` calls for us,
   with the numbers of NVIDIA's documentation. What it says stands in the file $NVML_STAND_IN, one record a line; see
   tests/support/nvml.py. It is compiled without headers, so that a compiler alone suffices. With -DOLD it lacks what
   came with later drivers. */

typedef struct File File;
extern File *fopen(const char *, const char *);
extern char *fgets(char *, int, File *);
extern int fclose(File *);
extern int sscanf(const char *, const char *, ...);
extern char *getenv(const char *);
extern char *strncpy(char *, const char *, unsigned long);
extern int pause(void);
extern void abort(void);

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, MOST = 64 };

struct device {
    int parent; /* -1: a GPU of its own */
    char uuid[96], name[96];
    unsigned long long total, used;
    int percent, mig, handle_code, memory_code, use_code, id_code;
};

static struct device devices[MOST];
static int known, init_code, count_code;
static char driver[80];

static void load(void) {
    char line[512];
    known = 0;
    init_code = count_code = 0;
    File *file = fopen(getenv("NVML_STAND_IN"), "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        struct device *next = &devices[known];
        if (sscanf(line, "init %d", &init_code) == 1) continue;
        if (sscanf(line, "count %d", &count_code) == 1) continue;
        if (sscanf(line, "driver %79s", driver) == 1) continue;
        if (line[0] == 'H') for (;;) pause();
        if (line[0] == 'C') abort();
        if (known < MOST &&
            sscanf(line, "device %d %95s %95s %llu %llu %d %d %d %d %d %d", &next->parent, next->uuid, next->name,
                   &next->total, &next->used, &next->percent, &next->mig, &next->handle_code, &next->memory_code,
                   &next->use_code, &next->id_code) == 11)
            known++;
    }
    fclose(file);
}

static struct device *child(int parent, unsigned number) {
    for (int place = 0; place < known; place++)
        if (devices[place].parent == parent && number-- == 0) return &devices[place];
    return 0;
}

static int copied(char *to, const char *from, unsigned size, int code) {
    if (!code) strncpy(to, from, size);
    return code;
}

static int init(void) {
    load();
    return init_code;
}

int nvmlInit_v2(void) { return init(); }
#ifndef OLD
int nvmlInitWithFlags(unsigned flags) { return flags ? INVALID_ARGUMENT : init(); }
#endif
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires restart";
    case 18: return "RM has detected an NVML/RM version mismatch.";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *to, unsigned size) { return copied(to, driver, size, SUCCESS); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    for (*count = 0; child(-1, *count); ++*count) {}
    return count_code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **handle) {
    *handle = child(-1, index);
    return *handle ? (*handle)->handle_code : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(struct device *handle, char *to, unsigned size) {
    return copied(to, handle->uuid, size, handle->id_code);
}

int nvmlDeviceGetName(struct device *handle, char *to, unsigned size) {
    return copied(to, handle->name, size, SUCCESS);
}

int nvmlDeviceGetMemoryInfo(struct device *handle, unsigned long long *memory) {
    memory[0] = handle->total;
    memory[1] = handle->total - handle->used;
    memory[2] = handle->used;
    return handle->memory_code;
}

int nvmlDeviceGetUtilizationRates(struct device *handle, unsigned *rates) {
    rates[0] = (unsigned)handle->percent;
    rates[1] = 0;
    return handle->use_code;
}

#ifndef OLD
int nvmlDeviceGetMigMode(struct device *handle, unsigned *current, unsigned *pending) {
    *current = *pending = (unsigned)handle->mig;
    return handle->mig < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *handle, unsigned *count) {
    *count = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *handle, unsigned index, struct device **instance) {
    *instance = child((int)(handle - devices), index);
    return *instance ? SUCCESS : NOT_FOUND;
}
#endif
