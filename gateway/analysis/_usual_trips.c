/* Round trips of a direction in nanoseconds, which look to Python like an array, as far as `tcp` and the report use them.
 * Once the file was read they are put in order, and say of themselves what `measures.stats_ms` says of them.
 */

#include "_usual.h"

#include <math.h>
#include <stdlib.h>

#define STATS 5 /* besides their number */

static PyObject *stats_names[STATS + 1];

int trips_setup(void)
{
    static const char *const names[STATS + 1] = {"n", "min", "median", "p95", "max", "stdev"};

    for (int i = 0; i <= STATS; i++)
        if (!(stats_names[i] = PyUnicode_InternFromString(names[i])))
            return -1;
    return 0;
}

int trips_push(Trips *self, uint64_t trip)
{
    if (self->count == self->room) {
        Py_ssize_t room = self->room ? 2 * self->room : 8;
        uint64_t *items = PyMem_Realloc(self->items, (size_t)room * sizeof(uint64_t));

        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->items = items;
        self->room = room;
    }
    self->items[self->count++] = trip;
    return 0;
}

static PyObject *trips_append(Trips *self, PyObject *value)
{
    uint64_t trip = PyLong_AsUnsignedLongLong(value);

    if (PyErr_Occurred() || trips_push(self, trip) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static Py_ssize_t trips_length(Trips *self)
{
    return self->count;
}

static PyObject *trips_item(Trips *self, Py_ssize_t index)
{
    if (index < 0 || index >= self->count) {
        PyErr_SetString(PyExc_IndexError, "no such round trip");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(self->items[index]);
}

static PyObject *trips_subscript(Trips *self, PyObject *key)
{
    Py_ssize_t begin, end, step;

    if (!PySlice_Check(key)) {
        Py_ssize_t index = index_of(key, self->count);

        return index < 0 ? NULL : trips_item(self, index);
    }
    if (PySlice_Unpack(key, &begin, &end, &step) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(self->count, &begin, &end, step);
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *trip = trips_item(self, begin + i * step);

        if (trip == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, trip);
    }
    return list;
}

static int trips_assign_subscript(Trips *self, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a round trip is not taken back");
        return -1;
    }
    uint64_t trip = PyLong_AsUnsignedLongLong(value);
    Py_ssize_t index = PyErr_Occurred() ? -1 : index_of(key, self->count);
    if (index < 0)
        return -1;
    self->items[index] = trip;
    return 0;
}

static int trip_order(const void *one, const void *other)
{
    uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;

    return (left > right) - (left < right);
}

static PyObject *trips_sort(Trips *self, PyObject *nothing)
{
    (void)nothing;
    if (self->count < self->room) { /* no more come: what was kept free for them is given back */
        uint64_t *items = PyMem_Realloc(self->items, (size_t)self->count * sizeof(uint64_t));

        if (items != NULL) {
            self->items = items;
            self->room = self->count;
        }
    }
    qsort(self->items, (size_t)self->count, sizeof(uint64_t), trip_order);
    Py_RETURN_NONE;
}

/* Standard deviation of sorted round trips in milliseconds, as `measures.stats_ms` has it: the root of a whole number
 * that is exact. Below zero where that might not fit into 128 bits, or where the compiler has none.
 */
static double deviation(const Trips *self)
{
#ifdef __SIZEOF_INT128__
    unsigned __int128 sum = 0, squares = 0;

    if (self->items[self->count - 1] >> 50 || self->count > MAX_SAMPLES)
        return -1;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        sum += self->items[i];
        squares += (unsigned __int128)self->items[i] * self->items[i];
    }
    return sqrt((double)((unsigned __int128)self->count * squares - sum * sum)) / (double)self->count / 1e6;
#else
    (void)self;
    return -1;
#endif
}

/* What `measures.stats_ms` says of round trips that were sorted. */
static PyObject *trips_stats(Trips *self, PyObject *nothing)
{
    double values[STATS];

    (void)nothing;
    if (!self->count || (values[STATS - 1] = deviation(self)) < 0)
        Py_RETURN_NONE;
    values[0] = (double)self->items[0] / 1e6;
    values[1] = (double)self->items[(self->count - 1) / 2] / 1e6;
    values[2] = (double)self->items[(self->count * 95 + 99) / 100 - 1] / 1e6;
    values[3] = (double)self->items[self->count - 1] / 1e6;
    PyObject *row = PyDict_New();
    for (int i = -1; row != NULL && i < STATS; i++) {
        PyObject *value = i < 0 ? PyLong_FromSsize_t(self->count) : PyFloat_FromDouble(values[i]);

        if (value == NULL || PyDict_SetItem(row, stats_names[i + 1], value) < 0)
            Py_CLEAR(row);
        Py_XDECREF(value);
    }
    return row;
}

static void trips_dealloc(Trips *self)
{
    PyMem_Free(self->items);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef trips_methods[] = {
    {"append", (PyCFunction)trips_append, METH_O, "Put a round trip behind the others."},
    {"sort", (PyCFunction)trips_sort, METH_NOARGS, "Put the round trips in order, the shortest first; no more will come."},
    {"stats_ms", (PyCFunction)trips_stats, METH_NOARGS,
     "What `measures.stats_ms` says of sorted round trips, None where that cannot be told here."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods trips_sequence = {
    .sq_length = (lenfunc)trips_length,
    .sq_item = (ssizeargfunc)trips_item,
};

static PyMappingMethods trips_mapping = {
    .mp_length = (lenfunc)trips_length,
    .mp_subscript = (binaryfunc)trips_subscript,
    .mp_ass_subscript = (objobjargproc)trips_assign_subscript,
};

PyTypeObject trips_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Trips",
    .tp_doc = "Round trips in nanoseconds, as an array would hold them.",
    .tp_basicsize = sizeof(Trips),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)trips_dealloc,
    .tp_as_sequence = &trips_sequence,
    .tp_as_mapping = &trips_mapping,
    .tp_methods = trips_methods,
};
