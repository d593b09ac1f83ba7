/* A direction of a flow for the helper: `flows.Direction` with its numbers as numbers of the machine, so that a usual
 * packet makes no object. To Python it looks like the class it stands for; its unacknowledged segments look like a list
 * of tuples, as far as `tcp` and the report use them.
 */

#include "_usual.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

#define SEGMENT_FORMAT "LLLiiLi"
#define KEPT_ROOM 32 /* segments; a longer list is given back when it is empty */

/* ---- Segments ---- */

int segments_push(Segments *self, const Segment *segment)
{
    if (self->first + self->count == self->room) {
        if (self->first > self->room / 2) {
            memmove(self->items, self->items + self->first, (size_t)self->count * sizeof(Segment));
            self->first = 0;
        }
        else {
            Py_ssize_t room = self->room ? 2 * self->room : 4;
            Segment *items = PyMem_Realloc(self->items, (size_t)room * sizeof(Segment));

            if (items == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            self->items = items;
            self->room = room;
        }
    }
    self->items[self->first + self->count++] = *segment;
    return 0;
}

void segments_drop(Segments *self, Py_ssize_t count)
{
    self->count -= count;
    self->first = self->count ? self->first + count : 0;
    if (!self->count && self->room > KEPT_ROOM) {
        PyMem_Free(self->items);
        self->items = NULL;
        self->room = 0;
    }
}

static PyObject *segment_tuple(const Segment *segment)
{
    return Py_BuildValue("(" SEGMENT_FORMAT ")", (long long)segment->end, (long long)segment->time,
                         (long long)segment->frame, (int)segment->ip_id, (int)segment->checksum,
                         (long long)segment->last, (int)segment->times);
}

static int segment_of(PyObject *row, Segment *segment)
{
    long long end, time, frame, last;
    int ip_id, checksum, times;

    if (!PyTuple_Check(row)) {
        PyErr_SetString(PyExc_TypeError, "a segment is a tuple of seven numbers");
        return -1;
    }
    if (!PyArg_ParseTuple(row, SEGMENT_FORMAT, &end, &time, &frame, &ip_id, &checksum, &last, &times))
        return -1;
    *segment = (Segment){end, time, frame, last, ip_id, checksum, times};
    return 0;
}

static Py_ssize_t segments_length(Segments *self)
{
    return self->count;
}

static PyObject *segments_item(Segments *self, Py_ssize_t index)
{
    if (index < 0 || index >= self->count) {
        PyErr_SetString(PyExc_IndexError, "no such segment");
        return NULL;
    }
    return segment_tuple(&self->items[self->first + index]);
}

static int segments_assign(Segments *self, Py_ssize_t index, PyObject *row)
{
    Segment segment;

    if (index < 0 || index >= self->count || row == NULL) {
        PyErr_SetString(PyExc_IndexError, "no such segment, or none to put there");
        return -1;
    }
    if (segment_of(row, &segment) < 0)
        return -1;
    self->items[self->first + index] = segment;
    return 0;
}

Py_ssize_t index_of(PyObject *key, Py_ssize_t count)
{
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);

    if (index < 0 && !PyErr_Occurred())
        index += count;
    if (!PyErr_Occurred() && (index < 0 || index >= count))
        PyErr_SetString(PyExc_IndexError, "index out of range");
    return PyErr_Occurred() ? -1 : index;
}

static PyObject *segments_subscript(Segments *self, PyObject *key)
{
    Py_ssize_t begin, end, step;

    if (!PySlice_Check(key)) {
        Py_ssize_t index = index_of(key, self->count);

        return index < 0 ? NULL : segments_item(self, index);
    }
    if (PySlice_Unpack(key, &begin, &end, &step) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(self->count, &begin, &end, step);
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *row = segments_item(self, begin + i * step);

        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, row);
    }
    return list;
}

static int segments_assign_subscript(Segments *self, PyObject *key, PyObject *row)
{
    Py_ssize_t begin, end, step;

    if (!PySlice_Check(key)) {
        Py_ssize_t index = index_of(key, self->count);

        return index < 0 ? -1 : segments_assign(self, index, row);
    }
    if (PySlice_Unpack(key, &begin, &end, &step) < 0)
        return -1;
    Py_ssize_t count = PySlice_AdjustIndices(self->count, &begin, &end, step);
    if (row != NULL || begin || step != 1) {
        PyErr_SetString(PyExc_TypeError, "segments are taken away from the first on");
        return -1;
    }
    segments_drop(self, count);
    return 0;
}

static PyObject *segments_append(Segments *self, PyObject *row)
{
    Segment segment;

    if (segment_of(row, &segment) < 0 || segments_push(self, &segment) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *segments_insert(Segments *self, PyObject *args)
{
    Py_ssize_t index;
    PyObject *row;
    Segment segment;

    if (!PyArg_ParseTuple(args, "nO", &index, &row) || segment_of(row, &segment) < 0)
        return NULL;
    if (index < 0 || index > self->count) {
        PyErr_SetString(PyExc_IndexError, "no such place among the segments");
        return NULL;
    }
    if (segments_push(self, &segment) < 0)
        return NULL;
    Segment *at = self->items + self->first + index;
    memmove(at + 1, at, (size_t)(self->count - 1 - index) * sizeof(Segment));
    *at = segment;
    Py_RETURN_NONE;
}

static PyObject *segments_clear(Segments *self, PyObject *nothing)
{
    (void)nothing;
    segments_drop(self, self->count);
    Py_RETURN_NONE;
}

static void segments_dealloc(Segments *self)
{
    PyMem_Free(self->items);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef segments_methods[] = {
    {"append", (PyCFunction)segments_append, METH_O, "Put a segment behind the others."},
    {"clear", (PyCFunction)segments_clear, METH_NOARGS, "Forget all segments."},
    {"insert", (PyCFunction)segments_insert, METH_VARARGS, "Put a segment where another stands, before it."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods segments_sequence = {
    .sq_length = (lenfunc)segments_length,
    .sq_item = (ssizeargfunc)segments_item,
};

static PyMappingMethods segments_mapping = {
    .mp_length = (lenfunc)segments_length,
    .mp_subscript = (binaryfunc)segments_subscript,
    .mp_ass_subscript = (objobjargproc)segments_assign_subscript,
};

PyTypeObject segments_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Segments",
    .tp_doc = "Unacknowledged segments, as a list of tuples would hold them.",
    .tp_basicsize = sizeof(Segments),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)segments_dealloc,
    .tp_as_sequence = &segments_sequence,
    .tp_as_mapping = &segments_mapping,
    .tp_methods = segments_methods,
};

/* ---- Direction ---- */

static PyObject *maybe_number(PyObject *self, void *at)
{
    int64_t value = *(int64_t *)((char *)self + (intptr_t)at);

    if (value == ABSENT)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(value);
}

static int set_maybe_number(PyObject *self, PyObject *value, void *at)
{
    int64_t number = value == NULL || value == Py_None ? ABSENT : PyLong_AsLongLong(value);

    if (number == -1 && PyErr_Occurred())
        return -1;
    *(int64_t *)((char *)self + (intptr_t)at) = number;
    return 0;
}

static PyObject *get_rev(Direction *self, void *nothing)
{
    (void)nothing;
    return Py_NewRef(self->rev == NULL ? Py_None : (PyObject *)self->rev);
}

static int set_rev(Direction *self, PyObject *value, void *nothing)
{
    (void)nothing;
    if (value != NULL && value != Py_None && !Py_IS_TYPE(value, &direction_type)) {
        PyErr_SetString(PyExc_TypeError, "rev is a direction or None");
        return -1;
    }
    Direction *before = self->rev;
    self->rev = value == NULL || value == Py_None ? NULL : (Direction *)Py_NewRef(value);
    Py_XDECREF(before);
    return 0;
}

static PyObject *get_old(Direction *self, void *nothing)
{
    (void)nothing;
    if (!self->has_old)
        Py_RETURN_NONE;
    return segment_tuple(&self->old);
}

static int set_old(Direction *self, PyObject *value, void *nothing)
{
    int present = value != NULL && value != Py_None;

    (void)nothing;
    if (present && segment_of(value, &self->old) < 0)
        return -1;
    self->has_old = (char)present;
    return 0;
}

static PyObject *get_signature(Direction *self, void *nothing)
{
    const Signature *known = &self->signature;

    (void)nothing;
    if (!self->has_signature)
        Py_RETURN_NONE;
    return Py_BuildValue("(iiLiLL)", (int)known->ip_id, (int)known->checksum, (long long)known->time, (int)known->of,
                         (long long)known->seq, (long long)known->ack);
}

static int set_signature(Direction *self, PyObject *value, void *nothing)
{
    long long time, seq, ack;
    int ip_id, checksum, of, present = value != NULL && value != Py_None;

    (void)nothing;
    if (present) {
        if (!PyTuple_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "a signature is a tuple of six numbers");
            return -1;
        }
        if (!PyArg_ParseTuple(value, "iiLiLL", &ip_id, &checksum, &time, &of, &seq, &ack))
            return -1;
        self->signature = (Signature){time, seq, ack, ip_id, checksum, of};
    }
    self->has_signature = (char)present;
    return 0;
}

/* Direction(connection, time, frame, vlan, ttl): what `flows.Direction.__init__` says, in its order. */
static PyObject *direction_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *connection, *time, *frame, *vlan, *ttl;

    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "a direction takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!O!O!O!", &connection, &PyLong_Type, &time, &PyLong_Type, &frame, &PyLong_Type,
                          &vlan, &PyLong_Type, &ttl))
        return NULL;
    int64_t t = PyLong_AsLongLong(time), number = PyErr_Occurred() ? -1 : PyLong_AsLongLong(frame);
    if (PyErr_Occurred())
        return NULL;
    Direction *self = (Direction *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->norm = self->shape = self->win = -1;
    self->nseq = self->la = self->nseq_time = self->head = self->edge = ABSENT;
    self->span = INT64_C(1) << 40; /* NEVER */
    self->shift = 14;
    self->app = 1;
    self->wmin = INT64_C(1) << 30;
    self->last = self->roll = self->roll_from = t;
    self->last_frame = number;
#define AS_NONE(name) self->name = Py_NewRef(Py_None);
    OBJECTS(AS_NONE)
#undef AS_NONE
    Py_SETREF(self->conn, Py_NewRef(connection));
    Py_SETREF(self->first, Py_NewRef(time));
    Py_SETREF(self->first_frame, Py_NewRef(frame));
    Py_SETREF(self->vlan, Py_NewRef(vlan));
    Py_SETREF(self->ttl, Py_NewRef(ttl));
    Py_SETREF(self->dup, PyLong_FromLong(0));
    Py_SETREF(self->idle, PyLong_FromLong(0));
    Py_SETREF(self->keepalive, Py_NewRef(Py_False));
    Py_SETREF(self->probe, Py_NewRef(Py_False));
    self->out = (Segments *)segments_type.tp_alloc(&segments_type, 0);
    if (self->out == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int direction_traverse(Direction *self, visitproc visit, void *arg)
{
#define VISIT(name) Py_VISIT(self->name);
    OBJECTS(VISIT)
#undef VISIT
    Py_VISIT(self->rev);
    return 0;
}

static int direction_clear(Direction *self)
{
#define CLEAR(name) Py_CLEAR(self->name);
    OBJECTS(CLEAR)
#undef CLEAR
    Py_CLEAR(self->rev);
    return 0;
}

static void direction_dealloc(Direction *self)
{
    PyObject_GC_UnTrack(self);
    direction_clear(self);
    Py_CLEAR(self->out);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef direction_members[] = {
#define AS_MEMBER(name) {#name, T_LONGLONG, offsetof(Direction, name), 0, NULL},
    NUMBERS(AS_MEMBER)
#undef AS_MEMBER
#define AS_MEMBER(name) {#name, T_OBJECT_EX, offsetof(Direction, name), 0, NULL},
    OBJECTS(AS_MEMBER)
#undef AS_MEMBER
    {"known", T_BOOL, offsetof(Direction, known), 0, NULL},
    {"out", T_OBJECT_EX, offsetof(Direction, out), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef direction_getset[] = {
#define AS_GETSET(name) {#name, maybe_number, set_maybe_number, NULL, (void *)(intptr_t)offsetof(Direction, name)},
    MAYBE_NUMBERS(AS_GETSET)
#undef AS_GETSET
    {"rev", (getter)get_rev, (setter)set_rev, NULL, NULL},
    {"old", (getter)get_old, (setter)set_old, NULL, NULL},
    {"signature", (getter)get_signature, (setter)set_signature, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject direction_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Direction",
    .tp_doc = "One direction of a connection: see `flows.Direction`.",
    .tp_basicsize = sizeof(Direction),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = direction_new,
    .tp_dealloc = (destructor)direction_dealloc,
    .tp_traverse = (traverseproc)direction_traverse,
    .tp_clear = (inquiry)direction_clear,
    .tp_members = direction_members,
    .tp_getset = direction_getset,
};
