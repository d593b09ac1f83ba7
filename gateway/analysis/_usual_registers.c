/* The tables of Python's in which the helper writes, with the bounds of one analysis, and the writing of numbers there.
 *
 * They are the tables themselves, not copies: whoever takes a packet finds what was made of the packets before.
 */

#include "_usual.h"

#include <string.h>

int put_number(PyObject *list, Py_ssize_t at, int64_t value)
{
    PyObject *number = PyLong_FromLongLong(value);

    return number == NULL ? -1 : PyList_SetItem(list, at, number);
}

int add_number(PyObject *list, Py_ssize_t at, int64_t more)
{
    int64_t value = PyLong_AsLongLong(PyList_GET_ITEM(list, at));

    return value == -1 && PyErr_Occurred() ? -1 : put_number(list, at, value + more);
}

int add_attribute(PyObject *object, PyObject *name, int64_t more)
{
    PyObject *before = PyObject_GetAttr(object, name), *added = PyLong_FromLongLong(more);
    PyObject *after = before == NULL || added == NULL ? NULL : PyNumber_Add(before, added);
    int done = after == NULL ? -1 : PyObject_SetAttr(object, name, after);

    Py_XDECREF(before);
    Py_XDECREF(added);
    Py_XDECREF(after);
    return done;
}

int put_attribute(PyObject *object, PyObject *name, int64_t value)
{
    PyObject *number = PyLong_FromLongLong(value);
    int done = number == NULL ? -1 : PyObject_SetAttr(object, name, number);

    Py_XDECREF(number);
    return done;
}

int count_key(PyObject *dict, PyObject *key, Py_ssize_t most)
{
    PyObject *before = PyDict_GetItemWithError(dict, key);

    if (before == NULL && (PyErr_Occurred() || PyDict_GET_SIZE(dict) >= most))
        return PyErr_Occurred() ? -1 : 0;
    int64_t count = before == NULL ? 0 : PyLong_AsLongLong(before);
    PyObject *after = count == -1 && PyErr_Occurred() ? NULL : PyLong_FromLongLong(count + 1);
    int done = after == NULL ? -1 : PyDict_SetItem(dict, key, after);

    Py_XDECREF(after);
    return done;
}

/* What `path` says of an object: attributes one below the other, with dots between. A new reference. */
static PyObject *attribute(PyObject *object, const char *path)
{
    PyObject *found = Py_NewRef(object);

    while (found != NULL && *path) {
        size_t size = strcspn(path, ".");
        PyObject *name = PyUnicode_FromStringAndSize(path, (Py_ssize_t)size);
        PyObject *below = name == NULL ? NULL : PyObject_GetAttr(found, name);

        Py_XDECREF(name);
        Py_SETREF(found, below);
        path += size + (path[size] == '.');
    }
    return found;
}

static PyObject *registers_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static const char *const held[HELD] = {"udp", "targets", "dns", "dns.pending", "dns.names", "dns.parents",
                                           "dns.servers", "dns.rcodes", "dns.statuses", "dns.rows", "dns.addresses", "http",
                                           "http.rows", "http.hosts", "http.methods", "http.statuses", "http.errors"};
    static const char *const bounds[BOUNDS] = {"settings.tables.flows", "settings.tables.rows", "settings.tables.names",
                                               "settings.tables.dns_pending", "frames_cap"};
    PyObject *st, *slow_dns = NULL, *slow_http = NULL, *spike = NULL, *decapsulate = NULL;

    if (!PyArg_ParseTuple(args, "O", &st) || (keywords != NULL && PyDict_GET_SIZE(keywords)))
        return NULL;
    Registers *self = (Registers *)type->tp_alloc(type, 0);
    for (int i = 0; self != NULL && i < HELD; i++) {
        self->held[i] = attribute(st, held[i]);
        if (self->held[i] == NULL)
            Py_CLEAR(self);
        else if (i == ROWS || i == HTTP_ROWS ? !PyList_CheckExact(self->held[i])
                                             : i != DNS_TABLE && i != HTTP_TABLE && !PyDict_CheckExact(self->held[i])) {
            PyErr_Format(PyExc_TypeError, "%s of a state is no table", held[i]);
            Py_CLEAR(self);
        }
    }
    for (int i = 0; self != NULL && i < BOUNDS; i++) {
        PyObject *number = attribute(st, bounds[i]);

        self->most[i] = number == NULL ? -1 : PyLong_AsSsize_t(number);
        Py_XDECREF(number);
        if (self->most[i] == -1 && PyErr_Occurred())
            Py_CLEAR(self);
    }
    slow_dns = self == NULL ? NULL : attribute(st, "settings.dns.slow_low_s");
    slow_http = slow_dns == NULL ? NULL : attribute(st, "settings.http.slow_s");
    spike = slow_http == NULL ? NULL : attribute(st, "spike_ns");
    decapsulate = spike == NULL ? NULL : attribute(st, "decapsulate");
    if (decapsulate != NULL) {
        self->slow_dns_s = PyFloat_AsDouble(slow_dns);
        self->slow_http_s = PyFloat_AsDouble(slow_http);
        self->spike_ns = PyLong_AsLongLong(spike);
        self->datagrams = PyObject_Not(decapsulate);
    }
    Py_XDECREF(slow_dns);
    Py_XDECREF(slow_http);
    Py_XDECREF(spike);
    Py_XDECREF(decapsulate);
    if (PyErr_Occurred())
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int registers_traverse(Registers *self, visitproc visit, void *arg)
{
    for (int i = 0; i < HELD; i++)
        Py_VISIT(self->held[i]);
    return 0;
}

static int registers_clear(Registers *self)
{
    self->datagrams = 0;
    for (int i = 0; i < HELD; i++)
        Py_CLEAR(self->held[i]);
    return 0;
}

static void registers_dealloc(Registers *self)
{
    PyObject_GC_UnTrack(self);
    registers_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyTypeObject registers_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Registers",
    .tp_doc = "Registers(state): the tables of Python's that are written here, and their bounds.",
    .tp_basicsize = sizeof(Registers),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = registers_new,
    .tp_dealloc = (destructor)registers_dealloc,
    .tp_traverse = (traverseproc)registers_traverse,
    .tp_clear = (inquiry)registers_clear,
};
