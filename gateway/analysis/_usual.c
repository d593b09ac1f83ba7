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
 * It fills the same objects as the loop in `batch.py` does, by the same rules, or leaves the packet alone before it has
 * changed anything. The state is that of Python: slots of `flows.Direction` are read and written where the type says they
 * are. So there is no second table, nothing to bring back, and a packet may change sides at any moment.
 *
 * The capture is hostile input: nothing is read from the buffer but behind a comparison with its end, and no number of a
 * packet is used as a length or an index.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <structmember.h>

#define MASK INT64_C(0xFFFFFFFF)
#define HALF INT64_C(0x80000000)
#define SECOND INT64_C(1000000000)
#define MAX_SAMPLES 4096

/* ---- the slots of a direction ---- */

#define SLOTS(X) \
    X(app) X(app_next) X(bytes) X(edge) X(head) X(known) X(la) X(last) X(last_frame) X(max_flight) X(norm) X(nseq) \
    X(nseq_time) X(old) X(out) X(packets) X(rev) X(roll) X(rtts) X(scaled) X(segments) X(shift) X(signature) \
    X(slow_from) X(span) X(tight) X(win) X(wmax) X(wmin)

#define AS_NUMBER(name) S_##name,
enum { SLOTS(AS_NUMBER) SLOT_COUNT };
#undef AS_NUMBER
#define AS_TEXT(name) #name,
static const char *const slot_names[SLOT_COUNT] = {SLOTS(AS_TEXT)};
#undef AS_TEXT

static Py_ssize_t slot_at[SLOT_COUNT];
static PyTypeObject *direction_type;
static PyObject *str_append, *str_seed, *str_watch, *opening_syn, *roll, *feed;

#define SLOT(object, name) (*(PyObject **)((char *)(object) + slot_at[S_##name]))

/* An integer slot. What is no integer of 64 bits makes the caller leave the packet to Python. */
static inline int number(PyObject *value, int64_t *result)
{
    int overflow;

    if (value == NULL || !PyLong_Check(value))
        return 0;
    *result = PyLong_AsLongLongAndOverflow(value, &overflow);
    return !overflow;
}

#define READ(object, name, into) \
    if (!number(SLOT(object, name), &(into))) \
        return 0

static inline void put(PyObject **slot, PyObject *value)
{
    PyObject *before = *slot;

    *slot = value;
    Py_XDECREF(before);
}

static inline int put_number(PyObject **slot, int64_t value)
{
    PyObject *made = PyLong_FromLongLong(value);

    if (made == NULL)
        return -1;
    put(slot, made);
    return 0;
}

#define WRITE(object, name, value) \
    if (put_number(&SLOT(object, name), (value)) < 0) \
        goto failed

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
    PyObject *tcp, *st;
    Py_ssize_t next, before;
    int64_t frame;
    int usual; /* whether any packet may be taken: the link type has an ethertype where it is looked for */
} Unusual;

/* One more round trip in the samples of `r`: appended, or in place of a random one as `State.random` picks it. */
static int sample(Unusual *self, PyObject *samples, PyObject *trip)
{
    Py_ssize_t length = PyObject_Length(samples);

    if (length < 0)
        return -1;
    if (length < MAX_SAMPLES) {
        PyObject *done = PyObject_CallMethodOneArg(samples, str_append, trip);

        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
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
    return PySequence_SetItem(samples, (Py_ssize_t)((value >> 8) % MAX_SAMPLES), trip);
}

/* How many of the unacknowledged segments `ack` covers; -1 where they are not what they should be. */
static Py_ssize_t covered(PyObject *out, int64_t ack)
{
    Py_ssize_t count = 0, size = PyList_GET_SIZE(out);
    int64_t end;

    for (; count < size; count++) {
        PyObject *entry = PyList_GET_ITEM(out, count);

        if (!PyTuple_CheckExact(entry) || PyTuple_GET_SIZE(entry) < 2 || !number(PyTuple_GET_ITEM(entry, 0), &end))
            return -1;
        if (((ack - end) & MASK) >= HALF)
            break;
    }
    return count;
}

/* A new tuple of all that `values` has, whose references it takes; NULL when one of them could not be made. */
static PyObject *tuple_of(PyObject **values, Py_ssize_t count)
{
    PyObject *made = PyTuple_New(count);

    for (Py_ssize_t i = 0; i < count; i++) {
        if (values[i] == NULL)
            Py_CLEAR(made);
        if (made != NULL)
            PyTuple_SET_ITEM(made, i, values[i]);
    }
    if (made == NULL)
        for (Py_ssize_t i = 0; i < count; i++)
            Py_XDECREF(values[i]);
    return made;
}

/* The first SYN of a pair of ports: told by itself, so that a flood of them costs one call each. */
static int first_syn(Unusual *self, const Record *record, int64_t frame, PyObject *key, const unsigned char *ip,
                     int64_t total, int doff)
{
    int64_t header = doff >> 2;

    if (total - 20 != header || header < 20 || record->end - record->start < self->before + 2 + total)
        return 0;
    PyObject *done = PyObject_CallFunction(
        opening_syn, "OOLLLiLiLy#n", self->st, key, (long long)frame, (long long)record->t,
        (long long)((uint32_t)ip[24] << 24 | ip[25] << 16 | ip[26] << 8 | ip[27]), (int)(ip[34] << 8 | ip[35]),
        (long long)(((int64_t)(ip[4] << 8 | ip[5]) << 16) | (ip[36] << 8 | ip[37])), (int)ip[8],
        (long long)record->wire, (const char *)(ip + 40), (Py_ssize_t)(total - 40), (Py_ssize_t)record->start);
    if (done == NULL)
        return -1;
    int taken = done == Py_True;
    Py_DECREF(done);
    return taken;
}

static int take_known(Unusual *self, const Record *record, int64_t frame, const unsigned char *ip, PyObject *d);

/* Take one packet into the flow table. 1: done; 0: nothing was changed, Python shall look; -1: an exception is set. */
static int take(Unusual *self, const Record *record, int64_t frame)
{
    if (record->start < 0 || record->end > self->view.len || record->end - record->start < self->before + 42)
        return 0;
    const unsigned char *ip = (const unsigned char *)self->view.buf + record->start + self->before + 2;
    if (ip[-2] != 0x08 || ip[-1] != 0x00 || ip[0] != 0x45 || ip[9] != 6)
        return 0;
    int fragment = ip[6] << 8 | ip[7];
    if (fragment != 0x4000 && fragment & 0x3FFF)
        return 0;
    int doff = ip[32], flags = ip[33];
    if (flags != 16 && flags != 24 && flags != 2)
        return 0;
    PyObject *key = PyBytes_FromStringAndSize((const char *)(ip + 12), 12);
    if (key == NULL)
        return -1;
    PyObject *d = PyDict_GetItemWithError(self->tcp, key);
    if (flags == 2) {
        int64_t total = ip[2] << 8 | ip[3];
        int taken = d != NULL || PyErr_Occurred() ? 0 : first_syn(self, record, frame, key, ip, total, doff);

        Py_DECREF(key);
        return PyErr_Occurred() ? -1 : taken;
    }
    Py_DECREF(key);
    if (d == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (Py_TYPE(d) != direction_type)
        return 0;
    Py_INCREF(d); /* what is called from here on is Python */
    int taken = take_known(self, record, frame, ip, d);
    Py_DECREF(d);
    return taken;
}

/* The same for a packet of a direction in the table. */
static int take_known(Unusual *self, const Record *record, int64_t frame, const unsigned char *ip, PyObject *d)
{
    int64_t norm, nseq, acked, head, edge, until, own_win, tight, app, known_bytes;
    int64_t seq = (int64_t)load(ip + 24, 1), ack = (int64_t)load(ip + 28, 1), t = record->t;
    int64_t total = ip[2] << 8 | ip[3], win = ip[34] << 8 | ip[35];
    int doff = ip[32], flags = ip[33];

    if (!win)
        return 0;

    READ(d, norm, norm);
    if (doff != norm)
        return 0;
    READ(d, nseq, nseq);
    if (seq != nseq)
        return 0;
    READ(d, roll, until);
    if (t >= until) { /* whoever takes the packet, this is what it begins with, and it is done once */
        PyObject *done = PyObject_CallFunction(roll, "OLOL", d, (long long)t, self->st, (long long)frame);

        if (done == NULL)
            return -1;
        Py_DECREF(done);
    }
    READ(d, la, acked);
    READ(d, head, head);
    READ(d, win, own_win);
    READ(d, tight, tight);
    READ(d, app, app);
    READ(d, bytes, known_bytes);
    PyObject *r = SLOT(d, rev);
    if (r == NULL || Py_TYPE(r) != direction_type)
        return 0;
    int64_t length = total - head, waiting = 0, stop = seq + length, tighter = 0;
    int64_t position = record->start + self->before + 22 + (doff >> 2 & 0x3C); /* of the payload */
    int moved = ack != acked, wanted = 0;
    if (moved) {
        READ(r, nseq, waiting);
        if (!(acked < ack && ack <= waiting && length >= 0))
            return 0;
    }
    else if (length <= 0)
        return 0;
    if (length) {
        READ(d, edge, edge);
        if (stop >= edge || length == 1) {
            int64_t r_la, r_scaled, r_span, r_win;

            READ(r, la, r_la);
            READ(r, scaled, r_scaled);
            READ(r, span, r_span);
            READ(r, win, r_win);
            int64_t flight = stop - r_la;
            if (flight == r_scaled || (length == 1 && !(r_win > 0)))
                return 0;
            tighter = r_span <= flight && flight < r_scaled;
        }
        if (app) {
            if (app == 2) {
                int64_t app_next;

                READ(d, app_next, app_next);
                int64_t ahead = stop - app_next;
                wanted = (ahead > 0 || ahead < -HALF) && 0 < (ahead & MASK) && (ahead & MASK) < HALF;
            }
            else
                wanted = app == 1 ||
                         (position < record->end && ((const unsigned char *)self->view.buf)[position] == app);
        }
    }
    /* What an acknowledgement covers, and the round trip that it ends */
    PyObject *waiting_out = NULL, *entry = NULL, *samples = NULL;
    Py_ssize_t count = 0;
    int64_t trip = -1, max_flight = 0;
    if (moved) {
        READ(r, max_flight, max_flight);
        waiting_out = SLOT(r, out);
        if (waiting_out == NULL || !PyList_CheckExact(waiting_out))
            return 0;
        Py_ssize_t size = PyList_GET_SIZE(waiting_out);
        if (size) {
            int64_t end, sent, slow_from;

            entry = PyList_GET_ITEM(waiting_out, size - 1);
            if (!PyTuple_CheckExact(entry) || PyTuple_GET_SIZE(entry) < 2 || !number(PyTuple_GET_ITEM(entry, 0), &end))
                return 0;
            if (end == ack)
                count = size;
            else {
                count = covered(waiting_out, ack);
                if (count < 0)
                    return 0;
                entry = count ? PyList_GET_ITEM(waiting_out, count - 1) : NULL;
            }
            if (entry != NULL && number(PyTuple_GET_ITEM(entry, 1), &sent)) /* else sent twice: it gives no round trip */
                trip = t - sent;
            if (trip >= 0) {
                READ(r, slow_from, slow_from);
                samples = SLOT(r, rtts);
                if (trip > slow_from || samples == NULL || samples == Py_None)
                    return 0;
            }
        }
    }
    PyObject *own_out = SLOT(d, out);
    if (length && (own_out == NULL || !PyList_CheckExact(own_out)))
        return 0;

    /* From here on the packet is taken, and everything is changed as `batch.run` does. */
    int64_t value, span;
    PyObject *at = PyLong_FromLongLong(t), *number_of = PyLong_FromLongLong(frame);
    if (at == NULL || number_of == NULL)
        goto failed;
    WRITE(d, bytes, known_bytes + record->wire);
    if (tighter)
        WRITE(d, tight, tight + 1);
    if (win != own_win) {
        int64_t shift;

        WRITE(d, win, win);
        if (!number(SLOT(d, shift), &shift) || shift < 0 || shift > 14)
            goto odd;
        WRITE(d, scaled, win << shift);
        if (PyObject_IsTrue(SLOT(d, known)) == 1)
            WRITE(d, span, (win << shift) - (win << shift) / 10);
        if (!number(SLOT(d, wmin), &value))
            goto odd;
        if (win < value) {
            WRITE(d, wmin, win);
        }
        else {
            if (!number(SLOT(d, wmax), &value))
                goto odd;
            if (win > value)
                WRITE(d, wmax, win);
        }
        if (!number(SLOT(d, span), &span))
            goto odd;
        WRITE(r, edge, ack + span);
    }
    if (moved) {
        if (waiting - acked > max_flight)
            WRITE(r, max_flight, waiting - acked);
        WRITE(d, la, ack);
        if (!number(SLOT(d, span), &span))
            goto odd;
        WRITE(r, edge, ack + span);
        if (count) {
            Py_INCREF(entry);
            put(&SLOT(r, old), entry);
            if (PyList_SetSlice(waiting_out, 0, count, NULL) < 0)
                goto failed;
        }
        if (trip >= 0) {
            PyObject *made = PyLong_FromLongLong(trip);

            if (made == NULL || sample(self, samples, made) < 0) {
                Py_XDECREF(made);
                goto failed;
            }
            Py_DECREF(made);
        }
    }
    PyObject *ip_id = PyLong_FromLong(ip[4] << 8 | ip[5]), *checksum = PyLong_FromLong(ip[36] << 8 | ip[37]);
    if (length) {
        PyObject *end = PyLong_FromLongLong(stop), *one = PyLong_FromLong(1);

        if (end != NULL) {
            Py_INCREF(end);
            put(&SLOT(d, nseq), end);
        }
        Py_INCREF(at);
        put(&SLOT(d, nseq_time), at);
        Py_INCREF(number_of);
        Py_INCREF(at);
        Py_INCREF(at);
        PyObject *row = tuple_of((PyObject *[]){end, at, number_of, ip_id, checksum, at, one}, 7);
        if (row == NULL || PyList_Append(own_out, row) < 0) {
            Py_XDECREF(row);
            goto failed;
        }
        Py_DECREF(row);
        if (!number(SLOT(d, segments), &value))
            goto odd;
        value++;
        WRITE(d, segments, value);
        if (!(value & 255) && PyList_GET_SIZE(own_out) > 512 && PyList_SetSlice(own_out, 0, 256, NULL) < 0)
            goto failed;
        if (wanted) {
            PyObject *done = PyObject_CallFunction(
                feed, "OOOLLLLOO", self->st, d, self->view.obj, (long long)position, (long long)record->end,
                (long long)seq, (long long)length, at, number_of);

            if (done == NULL)
                goto failed;
            Py_DECREF(done);
        }
    }
    else {
        if (!number(SLOT(d, packets), &value)) {
            Py_XDECREF(ip_id);
            Py_XDECREF(checksum);
            goto odd;
        }
        Py_INCREF(at);
        PyObject *row = tuple_of((PyObject *[]){ip_id, checksum, at, PyLong_FromLong((doff << 8 & 0xFF00) | flags),
                                                PyLong_FromLongLong(seq), PyLong_FromLongLong(ack)}, 6);
        if (row == NULL)
            goto failed;
        put(&SLOT(d, signature), row);
        WRITE(d, packets, value + 1);
    }
    put(&SLOT(d, last), at);
    put(&SLOT(d, last_frame), number_of);
    return 1;
odd:
    PyErr_SetString(PyExc_TypeError, "a direction holds something else than a number");
failed:
    Py_XDECREF(at);
    Py_XDECREF(number_of);
    return -1;
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
    if (direction_type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return -1;
    }
    if (self->records != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Unusual is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!y*LnO!O", &records_type, &records, &view, &frame, &before, &PyDict_Type, &tcp, &st))
        return -1;
    Py_INCREF(records);
    Py_INCREF(tcp);
    Py_INCREF(st);
    self->records = (Records *)records;
    self->view = view;
    self->tcp = tcp;
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
             "bind(Direction, opening_syn, roll, feed)\n\n"
             "Look up where the slots of `flows.Direction` are, and keep what is called of Python. Raises TypeError when one\n"
             "is missing or no slot.");

static PyObject *bind(PyObject *module, PyObject *args)
{
    PyObject *type, *functions[3];

    (void)module;
    if (!PyArg_ParseTuple(args, "O!OOO", &PyType_Type, &type, &functions[0], &functions[1], &functions[2]))
        return NULL;
    for (int i = 0; i < SLOT_COUNT; i++) {
        PyObject *slot = PyObject_GetAttrString(type, slot_names[i]);

        if (slot == NULL)
            return NULL;
        if (Py_TYPE(slot) != &PyMemberDescr_Type || ((PyMemberDescrObject *)slot)->d_member->type != T_OBJECT_EX) {
            Py_DECREF(slot);
            return PyErr_Format(PyExc_TypeError, "%s of a direction is no slot", slot_names[i]);
        }
        slot_at[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_DECREF(slot);
    }
    Py_INCREF(type);
    Py_XSETREF(direction_type, (PyTypeObject *)type);
    Py_XSETREF(opening_syn, Py_NewRef(functions[0]));
    Py_XSETREF(roll, Py_NewRef(functions[1]));
    Py_XSETREF(feed, Py_NewRef(functions[2]));
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
    str_append = PyUnicode_InternFromString("append");
    str_seed = PyUnicode_InternFromString("_seed");
    str_watch = PyUnicode_InternFromString("watch_mtu");
    if (!str_append || !str_seed || !str_watch || PyType_Ready(&records_type) < 0 ||
        PyType_Ready(&unusual_type) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddObjectRef(module, "Records", (PyObject *)&records_type) < 0 ||
        PyModule_AddObjectRef(module, "Unusual", (PyObject *)&unusual_type) < 0)
        return NULL;
    return module;
}
