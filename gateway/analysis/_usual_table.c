/* The flow table of the helper: a `dict` from the bytes of addresses and ports to a direction, that can be asked with
 * bytes where they lie in a packet. Python uses it by `get`, `pop`, `in`, `len` and assignment; it has no order.
 *
 * Open addressing with linear probing, never more than half full; what is removed is closed up, so that no marks are
 * left. Senders choose the keys: the hash is SipHash-1-3 under a secret of the interpreter, so that nobody can make
 * keys that share a place.
 */

#include "_usual.h"

#include <string.h>

#define FEWEST 64

static uint64_t secret[2];

int table_setup(void)
{
    static const char *const words[2] = {"flow table, first half", "flow table, second half"};

    for (int i = 0; i < 2; i++) {
        PyObject *word = PyBytes_FromString(words[i]); /* Python salts the hash of bytes anew in each process */
        Py_hash_t hash = word == NULL ? -1 : PyObject_Hash(word);

        Py_XDECREF(word);
        if (hash == -1)
            return -1;
        secret[i] = (uint64_t)hash;
    }
    return 0;
}

static inline uint64_t rotated(uint64_t value, int by)
{
    return value << by | value >> (64 - by);
}

#define ROUND \
    do { \
        v0 += v1, v1 = rotated(v1, 13) ^ v0, v0 = rotated(v0, 32); \
        v2 += v3, v3 = rotated(v3, 16) ^ v2; \
        v0 += v3, v3 = rotated(v3, 21) ^ v0; \
        v2 += v1, v1 = rotated(v1, 17) ^ v2, v2 = rotated(v2, 32); \
    } while (0)

static uint64_t hash_of(const unsigned char *key, Py_ssize_t size)
{
    uint64_t v0 = secret[0] ^ UINT64_C(0x736f6d6570736575), v1 = secret[1] ^ UINT64_C(0x646f72616e646f6d);
    uint64_t v2 = secret[0] ^ UINT64_C(0x6c7967656e657261), v3 = secret[1] ^ UINT64_C(0x7465646279746573);
    uint64_t word, end = (uint64_t)size << 56;

    for (; size >= 8; key += 8, size -= 8) {
        memcpy(&word, key, 8);
        v3 ^= word;
        ROUND;
        v0 ^= word;
    }
    word = 0;
    memcpy(&word, key, (size_t)size);
    word ^= end;
    v3 ^= word;
    ROUND;
    v0 ^= word;
    v2 ^= 0xFF;
    ROUND;
    ROUND;
    ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

/* Where a key is, or where it would be put: there is always a free place. */
static size_t place(const Table *self, uint64_t hash, const unsigned char *key, Py_ssize_t size)
{
    size_t at = (size_t)hash & self->mask;

    for (;; at = (at + 1) & self->mask) {
        const Entry *entry = &self->entries[at];

        if (entry->key == NULL || (entry->hash == hash && PyBytes_GET_SIZE(entry->key) == size &&
                                   !memcmp(PyBytes_AS_STRING(entry->key), key, (size_t)size)))
            return at;
    }
}

Direction *table_find(const Table *self, const unsigned char *key, Py_ssize_t size)
{
    return self->entries[place(self, hash_of(key, size), key, size)].value;
}

/* The entry of a key from Python; NULL with TypeError when it is not bytes. */
static Entry *entry_of(const Table *self, PyObject *key, uint64_t *hash)
{
    if (!PyBytes_CheckExact(key)) {
        PyErr_SetString(PyExc_TypeError, "the key of a flow is bytes");
        return NULL;
    }
    const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(key);
    *hash = hash_of(bytes, PyBytes_GET_SIZE(key));
    return &self->entries[place(self, *hash, bytes, PyBytes_GET_SIZE(key))];
}

static int enlarge(Table *self)
{
    size_t places = 2 * (self->mask + 1);
    Entry *before = self->entries, *entries = PyMem_Calloc(places, sizeof(Entry));

    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i <= self->mask; i++)
        if (before[i].key != NULL) {
            size_t at = (size_t)before[i].hash & (places - 1);

            while (entries[at].key != NULL)
                at = (at + 1) & (places - 1);
            entries[at] = before[i];
        }
    self->entries = entries;
    self->mask = places - 1;
    PyMem_Free(before);
    return 0;
}

/* Free a place, and move up what was put behind it for want of it. */
static void vacate(Table *self, size_t hole)
{
    self->count--;
    for (size_t at = (hole + 1) & self->mask; self->entries[at].key != NULL; at = (at + 1) & self->mask) {
        size_t home = (size_t)self->entries[at].hash & self->mask;

        if (((at - home) & self->mask) >= ((at - hole) & self->mask)) {
            self->entries[hole] = self->entries[at];
            hole = at;
        }
    }
    self->entries[hole] = (Entry){0, NULL, NULL};
}

static int table_assign(Table *self, PyObject *key, PyObject *value)
{
    uint64_t hash;
    Entry *entry = entry_of(self, key, &hash);

    if (entry == NULL)
        return -1;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a flow is taken out of its table by pop");
        return -1;
    }
    if (!Py_IS_TYPE(value, &direction_type)) {
        PyErr_SetString(PyExc_TypeError, "the table of flows holds directions");
        return -1;
    }
    if (entry->key != NULL) {
        Direction *before = entry->value;

        entry->value = (Direction *)Py_NewRef(value);
        Py_DECREF(before);
        return 0;
    }
    if (2 * self->count > self->mask) {
        if (enlarge(self) < 0)
            return -1;
        entry = entry_of(self, key, &hash);
    }
    *entry = (Entry){hash, Py_NewRef(key), (Direction *)Py_NewRef(value)};
    self->count++;
    return 0;
}

static int table_contains(Table *self, PyObject *key)
{
    uint64_t hash;
    Entry *entry = entry_of(self, key, &hash);

    return entry == NULL ? -1 : entry->key != NULL;
}

static Py_ssize_t table_length(Table *self)
{
    return (Py_ssize_t)self->count;
}

static PyObject *table_get(Table *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t hash;

    if (count != 1 && count != 2) {
        PyErr_SetString(PyExc_TypeError, "get takes a key and what stands for an absent flow");
        return NULL;
    }
    Entry *entry = entry_of(self, arguments[0], &hash);
    if (entry == NULL)
        return NULL;
    if (entry->key != NULL)
        return Py_NewRef((PyObject *)entry->value);
    return Py_NewRef(count == 2 ? arguments[1] : Py_None);
}

static PyObject *table_pop(Table *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t hash;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "pop takes a key and what stands for an absent flow");
        return NULL;
    }
    Entry *entry = entry_of(self, arguments[0], &hash);
    if (entry == NULL)
        return NULL;
    if (entry->key == NULL)
        return Py_NewRef(arguments[1]);
    PyObject *key = entry->key, *value = (PyObject *)entry->value;
    vacate(self, (size_t)(entry - self->entries));
    Py_DECREF(key);
    return value;
}

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    if (PyTuple_GET_SIZE(args) || (keywords != NULL && PyDict_GET_SIZE(keywords))) {
        PyErr_SetString(PyExc_TypeError, "a table begins empty");
        return NULL;
    }
    Table *self = (Table *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->entries = PyMem_Calloc(FEWEST, sizeof(Entry));
    if (self->entries == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->mask = FEWEST - 1;
    return (PyObject *)self;
}

static int table_traverse(Table *self, visitproc visit, void *arg)
{
    if (self->entries != NULL)
        for (size_t i = 0; i <= self->mask; i++)
            Py_VISIT(self->entries[i].value);
    return 0;
}

static int table_clear(Table *self)
{
    Entry *entries = self->entries;
    size_t mask = self->mask;

    if (!self->count)
        return 0;
    self->entries = PyMem_Calloc(FEWEST, sizeof(Entry));
    if (self->entries == NULL) { /* so that what runs meanwhile finds a table; the collector comes again */
        self->entries = entries;
        return 0;
    }
    self->mask = FEWEST - 1;
    self->count = 0;
    for (size_t i = 0; i <= mask; i++) {
        Py_XDECREF(entries[i].key);
        Py_XDECREF(entries[i].value);
    }
    PyMem_Free(entries);
    return 0;
}

static void table_dealloc(Table *self)
{
    PyObject_GC_UnTrack(self);
    if (self->entries != NULL)
        for (size_t i = 0; i <= self->mask; i++) {
            Py_XDECREF(self->entries[i].key);
            Py_XDECREF(self->entries[i].value);
        }
    PyMem_Free(self->entries);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef table_methods[] = {
    {"get", (PyCFunction)(void (*)(void))table_get, METH_FASTCALL, "The direction of a key, else None or the default."},
    {"pop", (PyCFunction)(void (*)(void))table_pop, METH_FASTCALL, "Take a direction out; the default if it is absent."},
    {NULL, NULL, 0, NULL},
};

static PyMappingMethods table_mapping = {
    .mp_length = (lenfunc)table_length,
    .mp_ass_subscript = (objobjargproc)table_assign,
};

static PySequenceMethods table_sequence = {
    .sq_contains = (objobjproc)table_contains,
};

PyTypeObject table_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Table",
    .tp_doc = "Directions by the bytes of their addresses and ports.",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = table_new,
    .tp_dealloc = (destructor)table_dealloc,
    .tp_traverse = (traverseproc)table_traverse,
    .tp_clear = (inquiry)table_clear,
    .tp_as_mapping = &table_mapping,
    .tp_as_sequence = &table_sequence,
    .tp_methods = table_methods,
};
