/* The usual packets of a capture, in machine code.
 *
 * Three loops of the analysis are taken over here. Two are for what is usual, and for nothing else:
 *
 *   Records.walk   the record headers of a classic pcap file, up to the first record about which anything is to be said
 *                  (cut, out of order, outside the running bin of the time series, damaged, unfinished);
 *   Unusual        an iterator over those packets of a block that are left to `batch.run`: each TCP segment over plain
 *                  IPv4 that brings the next data or advances the acknowledgement is taken into the flow table before;
 *
 * and one is the same in Python, in `engine`:
 *
 *   round_floats   the walk over the finished report that brings its numbers to six digits.
 *
 * It goes by the rules of the loop in `batch.py`, or leaves the packet alone before it has changed anything. There is
 * one state: with the helper, the directions of flows and their table are its own types (`_usual_flow.c`,
 * `_usual_table.c`), which Python reads and writes as it does its own. So there is nothing to bring back, and a packet
 * may change sides at any moment.
 *
 * The capture is hostile input: nothing is read from the buffer but behind a comparison with its end, and no number of a
 * packet is used as a length or an index.
 */

#include "_usual.h"

/* Grows with each change of what Python and the helper know of each other: see `native.py`. */
#define INTERFACE 2

static PyObject *str_seed, *str_watch, *str_spike, *str_frames_cap, *opening_syn, *roll, *feed, *slow_trip;

/* ---- Records ---- */

typedef struct {
    int64_t start, end, wire, t;
} Record;

typedef struct {
    PyObject_HEAD
    Record *items;
    Py_ssize_t count, room;
} Records;

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

static inline uint32_t load(const unsigned char *at, int big)
{
    if (big)
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
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

typedef struct {
    PyObject_HEAD
    Records *records;
    Py_buffer view;
    Table *tcp;
    PyObject *st;
    Py_ssize_t next, before;
    int64_t frame;
    int usual; /* whether any packet may be taken: the link type has an ethertype where it is looked for */
} Unusual;

/* One more round trip of `r`: behind the others, or in place of a random one as `State.random` picks it. */
static int sample(Unusual *self, Direction *r, int64_t trip)
{
    if (r->rtts == Py_None) {
        PyObject *made = trips_type.tp_alloc(&trips_type, 0);

        if (made == NULL)
            return -1;
        Py_SETREF(r->rtts, made);
    }
    Trips *samples = (Trips *)r->rtts;
    if (samples->count < MAX_SAMPLES)
        return trips_push(samples, (uint64_t)trip);
    PyObject *seed = PyObject_GetAttr(self->st, str_seed);
    if (seed == NULL)
        return -1;
    uint64_t value = PyLong_AsUnsignedLongLong(seed);
    Py_DECREF(seed);
    if (value == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    value = (value * 1103515245u + 12345u) & 0x7FFFFFFFu;
    seed = PyLong_FromUnsignedLongLong(value);
    if (seed == NULL || PyObject_SetAttr(self->st, str_seed, seed) < 0) {
        Py_XDECREF(seed);
        return -1;
    }
    Py_DECREF(seed);
    Py_ssize_t picked = (Py_ssize_t)((value >> 8) % MAX_SAMPLES);
    samples->items[picked < samples->count ? picked : 0] = (uint64_t)trip;
    return 0;
}

/* What a call of Python's gave: 0, or -1 with the exception set. */
static int called(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Tell `flows.slow_trip` of a round trip longer than those that are known. */
static int tell_slow(Unusual *self, Direction *r, int64_t trip, int64_t t, int64_t frame)
{
    PyObject *spike = PyObject_GetAttr(self->st, str_spike), *most = PyObject_GetAttr(self->st, str_frames_cap);
    int done = -1;

    if (spike != NULL && most != NULL)
        done = called(PyObject_CallFunction(slow_trip, "OLLLOO", r, (long long)trip, (long long)t, (long long)frame,
                                            spike, most));
    Py_XDECREF(spike);
    Py_XDECREF(most);
    return done;
}

/* Close the current second of a direction, as `tcp.roll` does; a silence is for that. */
static int turn(Unusual *self, Direction *d, int64_t t, int64_t frame)
{
    if (t - d->last > SECOND)
        return called(PyObject_CallFunction(roll, "OLOL", d, (long long)t, self->st, (long long)frame));
    int64_t payload = d->payload + (d->nseq == ABSENT ? 0 : d->nseq);
    if (payload - d->peak_base > d->peak)
        d->peak = payload - d->peak_base;
    d->peak_base = payload;
    d->roll_from = t;
    d->roll = t + SECOND;
    return 0;
}

/* The first SYN of a pair of ports: told by itself, so that a flood of them costs one call each. */
static int first_syn(Unusual *self, const Record *record, int64_t frame, const unsigned char *ip, int64_t total,
                     int doff)
{
    int64_t header = doff >> 2;

    if (total - 20 != header || header < 20 || record->end - record->start < self->before + 2 + total)
        return 0;
    PyObject *done = PyObject_CallFunction(
        opening_syn, "Oy#LLLiLiLy#n", self->st, (const char *)(ip + 12), (Py_ssize_t)12, (long long)frame,
        (long long)record->t, (long long)load(ip + 24, 1), (int)(ip[34] << 8 | ip[35]),
        (long long)(((int64_t)(ip[4] << 8 | ip[5]) << 16) | (ip[36] << 8 | ip[37])), (int)ip[8],
        (long long)record->wire, (const char *)(ip + 40), (Py_ssize_t)(total - 40), (Py_ssize_t)record->start);
    if (done == NULL)
        return -1;
    int taken = done == Py_True;
    Py_DECREF(done);
    return taken;
}

/* Take one packet of a direction in the table: the short path of `batch.run`, in its order. */
static int take_known(Unusual *self, const Record *record, int64_t frame, const unsigned char *ip, Direction *d)
{
    int64_t seq = (int64_t)load(ip + 24, 1), ack = (int64_t)load(ip + 28, 1), t = record->t;
    int64_t total = ip[2] << 8 | ip[3], win = ip[34] << 8 | ip[35];
    int doff = ip[32], flags = ip[33];
    Direction *r = d->rev;

    if (doff != d->norm || seq != d->nseq || !win || r == NULL || d->la == ABSENT || d->head == ABSENT ||
        d->edge == ABSENT || r->nseq == ABSENT || r->la == ABSENT || d->shift < 0 || d->shift > 14)
        return 0;
    int64_t length = total - d->head, acked = d->la, waiting = r->nseq, stop = seq + length;
    int64_t position = record->start + self->before + 22 + (doff >> 2 & 0x3C); /* of the payload */
    int moved = ack != acked, tighter = 0, wanted = 0;
    if (moved ? !(acked < ack && ack <= waiting && length >= 0) : length <= 0)
        return 0;
    if (moved && r->rtts != Py_None && (r->rtts == NULL || !Py_IS_TYPE(r->rtts, &trips_type)))
        return 0;
    if (length) {
        if (stop >= d->edge || length == 1) {
            int64_t flight = stop - r->la;

            if (flight == r->scaled || (length == 1 && !(r->win > 0)))
                return 0;
            tighter = r->span <= flight && flight < r->scaled;
        }
        if (d->app == 2) {
            int64_t ahead = stop - d->app_next;

            wanted = (ahead > 0 || ahead < -HALF) && 0 < (ahead & MASK) && (ahead & MASK) < HALF;
        }
        else if (d->app)
            wanted = d->app == 1 ||
                     (position < record->end && ((const unsigned char *)self->view.buf)[position] == d->app);
    }

    /* From here on the packet is taken. */
    d->tight += tighter;
    d->bytes += record->wire;
    if (t >= d->roll && turn(self, d, t, frame) < 0)
        return -1;
    if (win != d->win) {
        d->win = win;
        d->scaled = win << d->shift;
        if (d->known)
            d->span = d->scaled - d->scaled / 10;
        if (win < d->wmin)
            d->wmin = win;
        else if (win > d->wmax)
            d->wmax = win;
        r->edge = ack + d->span;
    }
    if (moved) {
        Segments *out = r->out;

        if (waiting - acked > r->max_flight)
            r->max_flight = waiting - acked;
        d->la = ack;
        r->edge = ack + d->span;
        if (out->count) {
            const Segment *items = out->items + out->first;
            Py_ssize_t count = 0;
            int64_t trip = -1;

            if (items[out->count - 1].end == ack)
                count = out->count;
            else
                while (count < out->count && ((ack - items[count].end) & MASK) < HALF)
                    count++;
            if (count) {
                r->old = items[count - 1];
                r->has_old = 1;
                trip = t - r->old.time; /* below zero where it was sent twice: it gives no round trip */
                segments_drop(out, count);
            }
            if (trip >= 0) {
                if (sample(self, r, trip) < 0)
                    return -1;
                if (trip > r->slow_from && tell_slow(self, r, trip, t, frame) < 0)
                    return -1;
            }
        }
    }
    int32_t ip_id = ip[4] << 8 | ip[5], checksum = ip[36] << 8 | ip[37];
    if (length) {
        d->nseq = stop;
        d->nseq_time = t;
        d->segments++;
        if (segments_push(d->out, &(Segment){stop, t, frame, t, ip_id, checksum, 1}) < 0)
            return -1;
        if (!(d->segments & 255) && d->out->count > 512)
            segments_drop(d->out, 256);
        if (wanted && called(PyObject_CallFunction(feed, "OOOLLLLLL", self->st, d, self->view.obj, (long long)position,
                                                   (long long)record->end, (long long)seq, (long long)length,
                                                   (long long)t, (long long)frame)) < 0)
            return -1;
    }
    else {
        d->packets++;
        d->signature = (Signature){t, seq, ack, ip_id, checksum, (doff << 8 & 0xFF00) | flags};
        d->has_signature = 1;
    }
    d->last = t;
    d->last_frame = frame;
    return 1;
}

/* Take one packet into the flow table. 1: done; 0: nothing was changed, Python shall look; -1: an exception is set. */
static int take(Unusual *self, const Record *record, int64_t frame)
{
    if (record->start < 0 || record->end > self->view.len || record->end - record->start < self->before + 42)
        return 0;
    const unsigned char *ip = (const unsigned char *)self->view.buf + record->start + self->before + 2;
    if (ip[-2] != 0x08 || ip[-1] != 0x00 || ip[0] != 0x45 || ip[9] != 6)
        return 0;
    int fragment = ip[6] << 8 | ip[7], flags = ip[33];
    if (fragment != 0x4000 && fragment & 0x3FFF)
        return 0;
    if (flags != 16 && flags != 24 && flags != 2)
        return 0;
    Direction *d = table_find(self->tcp, ip + 12, 12);
    if (flags == 2)
        return d != NULL ? 0 : first_syn(self, record, frame, ip, ip[2] << 8 | ip[3], ip[32]);
    if (d == NULL)
        return 0;
    Direction *r = (Direction *)Py_XNewRef((PyObject *)d->rev); /* what is called from here on is Python */
    Py_INCREF(d);
    int taken = take_known(self, record, frame, ip, d);
    Py_DECREF(d);
    Py_XDECREF(r);
    return taken;
}

static PyObject *unusual_next(Unusual *self)
{
    Records *records = self->records;
    int usual = self->usual;

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

        int taken = usual ? take(self, record, frame) : 0;
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
             "Unusual(records, buffer, first_frame, ethertype_at, tcp, state)\n\n"
             "Iterates over (frame, record) of the packets that are not usual; the usual ones are taken into `tcp`, the flow\n"
             "table of `state`, on the way. `ethertype_at` is -1 where there is none.");

static int unusual_init(Unusual *self, PyObject *args, PyObject *keywords)
{
    PyObject *records, *tcp, *st;
    Py_buffer view;
    Py_ssize_t before;
    long long frame;

    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Unusual takes no keywords");
        return -1;
    }
    if (feed == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return -1;
    }
    if (self->records != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Unusual is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!y*LnO!O", &records_type, &records, &view, &frame, &before, &table_type, &tcp, &st))
        return -1;
    Py_INCREF(records);
    Py_INCREF(tcp);
    Py_INCREF(st);
    self->records = (Records *)records;
    self->view = view;
    self->tcp = (Table *)tcp;
    self->st = st;
    self->before = before;
    self->frame = frame;
    self->usual = before >= 0;
    return 0;
}

static void unusual_dealloc(Unusual *self)
{
    if (self->records != NULL) {
        PyBuffer_Release(&self->view);
        Py_CLEAR(self->records);
        Py_CLEAR(self->tcp);
        Py_CLEAR(self->st);
    }
    Py_TYPE(self)->tp_free((PyObject *)self);
}

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
             "bind(opening_syn, roll, feed, slow_trip)\n\n"
             "Say what is called of Python.");

static PyObject *bind(PyObject *module, PyObject *args)
{
    PyObject *functions[4];

    (void)module;
    if (!PyArg_ParseTuple(args, "OOOO", &functions[0], &functions[1], &functions[2], &functions[3]))
        return NULL;
    Py_XSETREF(opening_syn, Py_NewRef(functions[0]));
    Py_XSETREF(roll, Py_NewRef(functions[1]));
    Py_XSETREF(feed, Py_NewRef(functions[2]));
    Py_XSETREF(slow_trip, Py_NewRef(functions[3]));
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
                                          &table_type};

    str_seed = PyUnicode_InternFromString("_seed");
    str_watch = PyUnicode_InternFromString("watch_mtu");
    str_spike = PyUnicode_InternFromString("spike_ns");
    str_frames_cap = PyUnicode_InternFromString("frames_cap");
    if (!str_seed || !str_watch || !str_spike || !str_frames_cap || table_setup() < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddIntMacro(module, INTERFACE) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (PyModule_AddType(module, types[i]) < 0)
            return NULL;
    return module;
}
