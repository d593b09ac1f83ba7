/* The usual packets of a capture, in machine code.
 *
 * Three loops of the analysis are taken over here. Two are for what is usual, and for nothing else:
 *
 *   Records.walk   the record headers of a classic pcap file, up to the first record about which anything is to be said
 *                  (cut, out of order, outside the running bin of the time series, damaged, unfinished);
 *   Unusual        an iterator over those packets of a block that are left to `batch.run`: TCP over plain IPv4 or IPv6
 *                  is taken into the flow table before (`_usual_tcp.c`), and so are datagrams (`_usual_udp.c`);
 *
 * and one is the same in Python, in `engine`:
 *
 *   round_floats   the walk over the finished report that brings its numbers to six digits.
 *
 * It goes by the rules of the loop in `batch.py`, calls those in `tcp` and `handshake` where a segment is anything but
 * usual, or leaves the packet to the loop before it has changed anything. There is one state: with the helper, the directions of flows and their table are its own types (`_usual_flow.c`,
 * `_usual_table.c`), which Python reads and writes as it does its own. So there is nothing to bring back, and a packet
 * may change sides at any moment.
 *
 * The capture is hostile input: nothing is read from the buffer but behind a comparison with its end, and no number of a
 * packet is used as a length or an index.
 */

#include "_usual.h"

#include <stddef.h>
#include <structmember.h>

/* Grows with each change of what Python and the helper know of each other: see `native.py`. */
#define INTERFACE 5

static PyObject *str_watch;

/* ---- Records ---- */

static int grow(Records *self)
{
    Py_ssize_t room = self->room ? 2 * self->room : 256;
    Record *items = PyMem_Realloc(self->items, (size_t)room * sizeof(Record));

    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->items = items;
    self->room = room;
    return 0;
}

static PyObject *record_tuple(const Record *record)
{
    return Py_BuildValue("(LLLL)", (long long)record->start, (long long)record->end, (long long)record->wire,
                         (long long)record->t);
}

static void records_dealloc(Records *self)
{
    PyMem_Free(self->items);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static Py_ssize_t records_length(Records *self)
{
    return self->count;
}

static PyObject *records_item(Records *self, Py_ssize_t index)
{
    if (index < 0 || index >= self->count) {
        PyErr_SetString(PyExc_IndexError, "no such record");
        return NULL;
    }
    return record_tuple(&self->items[index]);
}

static PyObject *records_append(Records *self, PyObject *row)
{
    long long start, end, wire, t;

    if (!PyTuple_Check(row) || !PyArg_ParseTuple(row, "LLLL", &start, &end, &wire, &t)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a record is a tuple of four numbers");
        return NULL;
    }
    if (self->count == self->room && grow(self) < 0)
        return NULL;
    self->items[self->count++] = (Record){start, end, wire, t};
    Py_RETURN_NONE;
}

PyDoc_STRVAR(walk_doc,
             "walk(buffer, position, header, unit_ns, big, previous, until) -> int\n\n"
             "Append the usual records of a classic pcap buffer from `position` on, and return where the first stands that is\n"
             "not: unfinished, cut, with a fraction of more than a second, or with a time not from `previous` to `until`.");

static PyObject *records_walk(Records *self, PyObject *args)
{
    Py_buffer view;
    Py_ssize_t position, header;
    long long unit, previous, until;
    int big;

    if (!PyArg_ParseTuple(args, "y*nnLpLL", &view, &position, &header, &unit, &big, &previous, &until))
        return NULL;
    if (position < 0 || header < 16 || unit < 1) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "walk: position, header or unit out of range");
        return NULL;
    }
    const unsigned char *bytes = view.buf;
    while (position <= view.len - header) {
        const unsigned char *at = bytes + position;
        uint32_t captured = load(at + 8, big);
        Py_ssize_t start = position + header;

        if ((int64_t)captured > (int64_t)(view.len - start) || captured != load(at + 12, big))
            break;
        int64_t fraction = (int64_t)load(at + 4, big) * unit;
        if (fraction >= SECOND)
            break;
        int64_t t = (int64_t)load(at, big) * SECOND + fraction;
        if (t < previous || t >= until)
            break;
        if (self->count == self->room && grow(self) < 0) {
            PyBuffer_Release(&view);
            return NULL;
        }
        previous = t;
        position = start + (Py_ssize_t)captured;
        self->items[self->count++] = (Record){start, position, captured, t};
    }
    PyBuffer_Release(&view);
    return PyLong_FromSsize_t(position);
}

static PyMethodDef records_methods[] = {
    {"append", (PyCFunction)records_append, METH_O, "Put a record (start, end, wire length, time in ns) behind the others."},
    {"walk", (PyCFunction)records_walk, METH_VARARGS, walk_doc},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods records_sequence = {
    .sq_length = (lenfunc)records_length,
    .sq_item = (ssizeargfunc)records_item,
};

static PyTypeObject records_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Records",
    .tp_doc = "Records of a block, as a list of tuples would hold them.",
    .tp_basicsize = sizeof(Records),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)records_dealloc,
    .tp_as_sequence = &records_sequence,
    .tp_methods = records_methods,
};

/* ---- Unusual ---- */

static PyObject *unusual_next(Unusual *self)
{
    Records *records = self->records;
    int usual = self->before >= 0;

    if (usual) {
        PyObject *watch = PyObject_GetAttr(self->st, str_watch);

        if (watch == NULL)
            return NULL;
        usual = watch == Py_False; /* else each packet is compared with what a router said of its size */
        Py_DECREF(watch);
    }
    while (self->next < records->count) {
        const Record *record = &records->items[self->next];
        int64_t frame = self->frame + self->next++;

        int taken = usual ? usual_take(self, record, frame) : 0;
        if (usual && !taken)
            taken = udp_take(self, record, frame);
        if (taken < 0)
            return NULL;
        if (!taken) {
            PyObject *row = record_tuple(record);

            return row == NULL ? NULL : Py_BuildValue("(LN)", (long long)frame, row);
        }
    }
    return NULL;
}

PyDoc_STRVAR(unusual_doc,
             "Unusual(records, buffer, first_frame, ethertype_at, tcp, state, registers)\n\n"
             "Iterates over (frame, record) of the packets that are not usual; the usual ones are taken into `tcp`, the flow\n"
             "table of `state`, or those in `registers` on the way. `ethertype_at` is -1 where there is none.");

static int unusual_init(Unusual *self, PyObject *args, PyObject *keywords)
{
    PyObject *records, *tcp, *st, *registers;
    Py_buffer view;
    Py_ssize_t before;
    long long frame;

    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Unusual takes no keywords");
        return -1;
    }
    if (call[SEGMENT] == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return -1;
    }
    if (self->records != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Unusual is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!y*LnO!OO!", &records_type, &records, &view, &frame, &before, &table_type, &tcp, &st,
                          &registers_type, &registers))
        return -1;
    Py_INCREF(records);
    Py_INCREF(tcp);
    Py_INCREF(st);
    Py_INCREF(registers);
    self->registers = (Registers *)registers;
    self->records = (Records *)records;
    self->view = view;
    self->tcp = (Table *)tcp;
    self->st = st;
    self->before = before;
    self->frame = frame;
    return 0;
}

static void unusual_dealloc(Unusual *self)
{
    if (self->records != NULL) {
        PyBuffer_Release(&self->view);
        Py_CLEAR(self->records);
        Py_CLEAR(self->tcp);
        Py_CLEAR(self->st);
        Py_CLEAR(self->registers);
    }
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef unusual_members[] = {
    {"packets6", T_LONGLONG, offsetof(Unusual, packets6), READONLY, "How many of the packets taken were IPv6."},
    {"bytes6", T_LONGLONG, offsetof(Unusual, bytes6), READONLY, "Bytes of those on the wire."},
    {"datagrams", T_LONGLONG, offsetof(Unusual, datagrams_taken), READONLY, "How many were datagrams over IPv4."},
    {"datagram_bytes", T_LONGLONG, offsetof(Unusual, datagram_bytes), READONLY, "Bytes of those on the wire."},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject unusual_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway.analysis._usual.Unusual",
    .tp_doc = unusual_doc,
    .tp_basicsize = sizeof(Unusual),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)unusual_init,
    .tp_dealloc = (destructor)unusual_dealloc,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)unusual_next,
    .tp_members = unusual_members,
};

/* ---- round_floats ---- */

/* A float with six significant digits, None where it is no number; a new reference. */
static PyObject *six_digits(PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);

    if (number - number != 0)
        Py_RETURN_NONE;
    if (number > -1e6 && number < 1e6 && number == (double)(int)number) /* has no more than six, as most have */
        return Py_NewRef(value);
    char *text = PyOS_double_to_string(number, 'g', 6, 0, NULL);
    if (text == NULL)
        return NULL;
    number = PyOS_string_to_double(text, NULL, NULL);
    PyMem_Free(text);
    return number == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(number);
}

static int round_tree(PyObject *tree);

/* What stands for `value` in a report, a new reference; its own members are dealt with on the way. */
static PyObject *rounded(PyObject *value)
{
    if (PyFloat_CheckExact(value))
        return six_digits(value);
    PyObject *kept = PyTuple_CheckExact(value) ? PySequence_List(value) : Py_NewRef(value);
    if (kept != NULL && round_tree(kept) < 0)
        Py_CLEAR(kept);
    return kept;
}

static int round_tree(PyObject *tree)
{
    Py_ssize_t position = 0;
    PyObject *key, *value;
    int done = 0;

    if (!PyDict_CheckExact(tree) && !PyList_CheckExact(tree))
        return 0;
    if (Py_EnterRecursiveCall(" in a report"))
        return -1;
    if (PyDict_CheckExact(tree))
        while (!done && PyDict_Next(tree, &position, &key, &value)) {
            PyObject *kept = rounded(value);

            if (kept == NULL || (kept != value && PyDict_SetItem(tree, key, kept) < 0))
                done = -1;
            Py_XDECREF(kept);
        }
    else
        for (; !done && position < PyList_GET_SIZE(tree); position++) {
            value = PyList_GET_ITEM(tree, position);
            PyObject *kept = rounded(value);

            if (kept == NULL || (kept != value && PyList_SetItem(tree, position, Py_NewRef(kept)) < 0))
                done = -1;
            Py_XDECREF(kept);
        }
    Py_LeaveRecursiveCall();
    return done;
}

static PyObject *round_floats(PyObject *module, PyObject *tree)
{
    (void)module;
    if (round_tree(tree) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- the module ---- */

PyDoc_STRVAR(bind_doc,
             "bind(opening_syn, opening, segment, established, roll, feed, slow_trip,\n"
             "     udp_ports, udp_flow, udp_read, close_second, parent_of, parent_stats,\n"
             "     app, payload, conversation, probes)\n\n"
             "Say what is called of Python, what each port of UDP is for, and which host is a probe.");

static PyObject *bind(PyObject *module, PyObject *args)
{
    (void)module;
    if (PyTuple_GET_SIZE(args) != CALLS) {
        PyErr_SetString(PyExc_TypeError, "bind takes one function for each call");
        return NULL;
    }
    if (!PyDict_CheckExact(PyTuple_GET_ITEM(args, UDP_PORTS)) || !PyDict_CheckExact(PyTuple_GET_ITEM(args, PROBES))) {
        PyErr_SetString(PyExc_TypeError, "ports and probes are dicts");
        return NULL;
    }
    for (int i = 0; i < CALLS; i++)
        Py_XSETREF(call[i], Py_NewRef(PyTuple_GET_ITEM(args, i)));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS, bind_doc},
    {"round_floats", round_floats, METH_O,
     "Bring the floats of a tree to six significant digits, and its tuples to lists, in place."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "gateway.analysis._usual",
    .m_doc = "The usual packets of a capture, in machine code.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__usual(void)
{
    static PyTypeObject *const types[] = {&records_type, &unusual_type, &direction_type, &segments_type, &trips_type,
                                          &table_type, &registers_type};

    str_watch = PyUnicode_InternFromString("watch_mtu");
    if (!str_watch || trips_setup() < 0 || tcp_setup() < 0 || table_setup() < 0 || udp_setup() < 0 || dns_setup() < 0 ||
        http_setup() < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddIntMacro(module, INTERFACE) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (PyModule_AddType(module, types[i]) < 0)
            return NULL;
    return module;
}
