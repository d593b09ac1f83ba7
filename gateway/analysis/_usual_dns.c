/* The usual DNS over UDP: a question about one plain name that nobody waits for yet, and its answer without an error,
 * with addresses of IPv4 alone. The rest is `dns.message`, which is asked before anything was changed.
 *
 * What is done is what `dns` does, in its tables; the comments are there.
 */

#include "_usual.h"

#include <string.h>

/* Positions in a row of the report while it is being made: see `dns`. */
enum { R_TIME, R_FRAME, R_RESPONSE, R_KEY, R_TRANSPORT, R_NAME, R_TYPE, R_RCODE, R_STATUS, R_NS, R_ANSWERS, R_SLOTS = 12 };

#define LONGEST_NAME 240
#define MOST_ANSWERS 8
#define MOST_TIMES 4096
#define MOST_HASHES 4096
#define COUNTED_QUERIES 512
#define MOST_CHARS 512

typedef struct {
    const unsigned char *bytes; /* of the message */
    int64_t size;
    int ident, flags, kind, answers;
    int64_t behind; /* of the question */
    PyObject *name, *lowered;
} Message;

static PyObject *str_udp, *str_waiting, *str_ok, *str_append;
static PyObject *str_queries, *str_responses, *str_total, *str_last_ns, *str_last_frame, *str_frames, *str_names,
    *str_odd_types, *str_labels, *str_label_chars, *str_chars, *str_answers, *str_answer_bytes, *str_transactions,
    *str_times;

int dns_setup(void)
{
    static const struct {
        PyObject **at;
        const char *text;
    } names[] = {
        {&str_udp, "udp"}, {&str_append, "append"}, {&str_waiting, "waiting"}, {&str_ok, "ok"}, {&str_queries, "queries"},
        {&str_responses, "responses"}, {&str_total, "total"}, {&str_last_ns, "last_ns"},
        {&str_last_frame, "last_frame"}, {&str_frames, "frames"}, {&str_names, "names"},
        {&str_odd_types, "odd_types"}, {&str_labels, "labels"}, {&str_label_chars, "label_chars"},
        {&str_chars, "chars"}, {&str_answers, "answers"}, {&str_answer_bytes, "answer_bytes"},
        {&str_transactions, "transactions"}, {&str_times, "times"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!(*names[i].at = PyUnicode_InternFromString(names[i].text)))
            return -1;
    return 0;
}

/* ---- reading ---- */

/* Read the header and the one question of a message; 0 when they are not the usual ones, -1 with an exception set. */
static int read_question(Message *message)
{
    const unsigned char *bytes = message->bytes;
    int64_t at = 12;
    int upper = 0;
    char text[LONGEST_NAME + 1], *out = text;

    if (message->size < 12 || bytes[2] & 0x78 || bytes[4] || bytes[5] != 1)
        return 0;
    while (at < message->size && bytes[at]) {
        int length = bytes[at++];

        if (length > 63 || at + length > message->size || out - text + length > LONGEST_NAME)
            return 0;
        if (out != text)
            *out++ = '.';
        for (int i = 0; i < length; i++) {
            unsigned char one = bytes[at++];

            if (!one || one > 127)
                return 0;
            upper |= one >= 'A' && one <= 'Z';
            *out++ = (char)one;
        }
    }
    if (out == text || at + 5 > message->size)
        return 0;
    message->ident = bytes[0] << 8 | bytes[1];
    message->flags = bytes[2] << 8 | bytes[3];
    message->answers = bytes[6] << 8 | bytes[7];
    message->kind = bytes[at + 1] << 8 | bytes[at + 2];
    message->behind = at + 5;
    message->name = PyUnicode_FromStringAndSize(text, out - text);
    if (!upper)
        message->lowered = Py_XNewRef(message->name);
    else {
        for (char *one = text; one < out; one++)
            *one = (char)(*one >= 'A' && *one <= 'Z' ? *one | 0x20 : *one);
        message->lowered = PyUnicode_FromStringAndSize(text, out - text);
    }
    return message->name == NULL || message->lowered == NULL ? -1 : 1;
}

/* Where the addresses of an answer are; 0 when there is anything else in it. */
static int read_answers(const Message *message, const unsigned char **addresses)
{
    const unsigned char *at = message->bytes + message->behind, *end = message->bytes + message->size;

    if (message->answers > MOST_ANSWERS)
        return 0;
    for (int i = 0; i < message->answers; i++, at += 16) {
        if (end - at < 16 || at[0] != 0xC0 || at[1] != 12 || at[2] || at[3] != 1 || at[10] || at[11] != 4)
            return 0;
        addresses[i] = at + 12;
    }
    return 1;
}

/* The key of a question in the table of those that wait: client and port, identifier, name, type. */
static PyObject *pending_key(const Message *message, const char *client, const char *port)
{
    char place[6];

    memcpy(place, client, 4);
    memcpy(place + 4, port, 2);
    return Py_BuildValue("(y#iOi)", place, (Py_ssize_t)6, message->ident, message->lowered, message->kind);
}

/* What one client asked under the parent of a name: a new reference; NULL without an exception when it asked nothing.
 * `parent` and `key` become new references in any case but that of an exception.
 */
static PyObject *parent_stats(Registers *tables, const Message *message, const char *client, PyObject **parent,
                              PyObject **key)
{
    *parent = PyObject_CallOneArg(call[PARENT_OF], message->name);
    *key = *parent == NULL ? NULL : Py_BuildValue("(y#O)", client, (Py_ssize_t)4, *parent);
    return *key == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(tables->held[PARENTS], *key));
}

/* ---- the question ---- */

/* Count the characters of the part of a name below its parent, without its dots. */
static int count_chars(PyObject *stats, PyObject *name, Py_ssize_t parent_size)
{
    const char *text = PyUnicode_DATA(name);
    Py_ssize_t size = PyUnicode_GET_LENGTH(name) - parent_size, dots = 0, done = 0;

    while (size > 0 && text[size - 1] == '.')
        size--;
    while (size > 0 && *text == '.')
        text++, size--;
    if (size <= 0)
        return 0;
    for (Py_ssize_t i = 0; i < size; i++)
        dots += text[i] == '.';
    if (add_attribute(stats, str_labels, 1) < 0 || add_attribute(stats, str_label_chars, size - dots) < 0)
        return -1;
    PyObject *queries = PyObject_GetAttr(stats, str_queries), *chars = PyObject_GetAttr(stats, str_chars);
    if (queries == NULL || chars == NULL || !PyDict_CheckExact(chars))
        done = -1;
    else if (PyLong_AsLongLong(queries) <= COUNTED_QUERIES)
        for (Py_ssize_t i = 0; !done && i < size; i++)
            if (text[i] != '.') {
                char one = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
                PyObject *letter = PyUnicode_FromStringAndSize(&one, 1);

                done = letter == NULL ? -1 : count_key(chars, letter, PY_SSIZE_T_MAX);
                Py_XDECREF(letter);
                if (PyDict_GET_SIZE(chars) > MOST_CHARS)
                    break;
            }
    Py_XDECREF(queries);
    Py_XDECREF(chars);
    return done < 0 || PyErr_Occurred() ? -1 : 0;
}

/* Count a question at its client and parent, as a tunnel would show there. */
static int count_parent(Registers *tables, const Message *message, PyObject *stats, PyObject *parent, int64_t t,
                        int64_t frame)
{
    int kind = message->kind, odd = kind == 5 || kind == 10 || kind == 16 || kind == 25, done = -1;
    Py_hash_t hash = PyObject_Hash(message->name);
    PyObject *frames = PyObject_GetAttr(stats, str_frames), *names = PyObject_GetAttr(stats, str_names);

    if (frames != NULL && PyList_CheckExact(frames) && names != NULL && PySet_CheckExact(names) && hash != -1 &&
        add_attribute(stats, str_queries, 1) == 0 && put_attribute(stats, str_last_ns, t) == 0 &&
        put_attribute(stats, str_last_frame, frame) == 0 && (!odd || add_attribute(stats, str_odd_types, 1) == 0)) {
        done = 0;
        if (PyList_GET_SIZE(frames) < tables->most[MOST_FRAMES]) {
            PyObject *number = PyLong_FromLongLong(frame);

            done = number == NULL ? -1 : PyList_Append(frames, number);
            Py_XDECREF(number);
        }
        if (!done && PySet_GET_SIZE(names) < MOST_HASHES) {
            PyObject *number = PyLong_FromSsize_t(hash);

            done = number == NULL ? -1 : PySet_Add(names, number);
            Py_XDECREF(number);
        }
        if (!done)
            done = count_chars(stats, message->name, PyUnicode_GET_LENGTH(parent));
    }
    Py_XDECREF(frames);
    Py_XDECREF(names);
    return done;
}

static int take_question(Unusual *self, const Message *message, PyObject *key, int64_t t, int64_t frame)
{
    Registers *tables = self->registers;
    PyObject *pending = tables->held[PENDING], *rows = tables->held[ROWS], *parents = tables->held[PARENTS];
    const char *bytes = PyBytes_AS_STRING(key);
    PyObject *waiting = pending_key(message, bytes, bytes + 8), *parent = NULL, *place = NULL, *stats = NULL, *row = NULL;
    int taken = -1, asked = waiting == NULL ? -1 : PyDict_Contains(pending, waiting);

    if (asked < 0)
        goto done;
    if (asked || PyDict_GET_SIZE(pending) >= tables->most[MOST_PENDING]) {
        taken = 0;
        goto done;
    }
    stats = parent_stats(tables, message, bytes, &parent, &place);
    if (stats == NULL) {
        if (PyErr_Occurred())
            goto done;
        if (PyDict_GET_SIZE(parents) >= tables->most[MOST_NAMES]) {
            taken = 0;
            goto done;
        }
        stats = PyObject_CallFunction(call[PARENT_STATS], "LL", (long long)t, (long long)frame);
        if (stats == NULL || PyDict_SetItem(parents, place, stats) < 0)
            goto done;
    }
    row = Py_BuildValue("[LLOOOOiOOO[]i]", (long long)t, (long long)frame, Py_None, key, str_udp, message->name,
                        message->kind, Py_None, str_waiting, Py_None, 0);
    if (row != NULL && PyDict_SetItem(pending, waiting, row) == 0 &&
        (PyList_GET_SIZE(rows) >= tables->most[MOST_ROWS] || PyList_Append(rows, row) == 0) &&
        add_attribute(tables->held[DNS_TABLE], str_queries, 1) == 0 &&
        add_attribute(tables->held[DNS_TABLE], str_total, 1) == 0 &&
        count_key(tables->held[NAMES], message->name, tables->most[MOST_NAMES]) == 0 &&
        count_parent(tables, message, stats, parent, t, frame) == 0)
        taken = 1;
done:
    Py_XDECREF(waiting);
    Py_XDECREF(parent);
    Py_XDECREF(place);
    Py_XDECREF(stats);
    Py_XDECREF(row);
    return taken;
}

/* ---- the answer ---- */

/* Texts of the addresses of an answer, which are remembered with the name that was asked for. */
static PyObject *answer_texts(Registers *tables, const Message *message, const unsigned char **addresses)
{
    PyObject *texts = PyList_New(message->answers), *known = tables->held[ADDRESSES];

    for (int i = 0; texts != NULL && i < message->answers; i++) {
        const unsigned char *four = addresses[i];
        PyObject *address = PyBytes_FromStringAndSize((const char *)four, 4);
        PyObject *text = PyUnicode_FromFormat("A %d.%d.%d.%d", four[0], four[1], four[2], four[3]);
        int room = address == NULL ? -1 : PyDict_Contains(known, address);

        if (room == 0)
            room = PyDict_GET_SIZE(known) < tables->most[MOST_NAMES];
        if (text != NULL)
            PyList_SET_ITEM(texts, i, text);
        if (text == NULL || room < 0 || (room && PyDict_SetItem(known, address, message->name) < 0))
            Py_CLEAR(texts);
        Py_XDECREF(address);
    }
    return texts;
}

static int take_answer(Unusual *self, const Message *message, PyObject *key, int64_t t, int64_t frame)
{
    Registers *tables = self->registers;
    PyObject *pending = tables->held[PENDING], *texts = NULL, *server = NULL, *times = NULL;
    const unsigned char *addresses[MOST_ANSWERS];
    const char *bytes = PyBytes_AS_STRING(key), *client = bytes + 4;

    if (message->flags & 0x020F || !read_answers(message, addresses))
        return 0; /* an error, or cut short */
    PyObject *waiting = pending_key(message, client, bytes + 10), *parent = NULL, *place = NULL, *stats = NULL;
    PyObject *row = waiting == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(pending, waiting));
    PyObject *counts = NULL;
    int taken = PyErr_Occurred() ? -1 : 0;
    if (taken < 0 || row == NULL || !PyList_CheckExact(row) || PyList_GET_SIZE(row) != R_SLOTS ||
        PyList_GET_ITEM(row, R_TRANSPORT) != str_udp) /* that question was seen by Python */
        goto done;
    int64_t asked = PyLong_AsLongLong(PyList_GET_ITEM(row, R_TIME)), waited;
    if (PyErr_Occurred()) {
        taken = -1;
        goto done;
    }
    server = PyBytes_FromStringAndSize(bytes, 4);
    counts = server == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(tables->held[SERVERS], server));
    times = counts == NULL ? NULL : PyObject_GetAttr(counts, str_times);
    Py_ssize_t kept = times == NULL ? -1 : PyObject_Size(times);
    if (PyErr_Occurred()) {
        taken = -1;
        goto done;
    }
    if (counts == NULL || asked < 0) /* a server's first answer */
        goto done;
    waited = t > asked ? t - asked : 0;
    if (waited > EXACT || (double)waited > tables->slow_dns_s * 1e9)
        goto done;
    stats = parent_stats(tables, message, client, &parent, &place);
    taken = -1;
    if (stats == NULL && PyErr_Occurred())
        goto done;
    texts = answer_texts(tables, message, addresses);
    PyObject *rcode = PyLong_FromLong(0), *elapsed = PyLong_FromLongLong(waited), *ended = PyLong_FromLongLong(frame);
    if (texts != NULL && rcode != NULL && elapsed != NULL && ended != NULL && PyDict_DelItem(pending, waiting) == 0 &&
        PyList_SetItem(row, R_RESPONSE, Py_NewRef(ended)) == 0 && PyList_SetItem(row, R_NS, Py_NewRef(elapsed)) == 0 &&
        PyList_SetItem(row, R_RCODE, Py_NewRef(rcode)) == 0 && PyList_SetItem(row, R_ANSWERS, Py_NewRef(texts)) == 0 &&
        PyList_SetItem(row, R_STATUS, Py_NewRef(str_ok)) == 0 &&
        add_attribute(tables->held[DNS_TABLE], str_responses, 1) == 0 &&
        count_key(tables->held[RCODES], rcode, PY_SSIZE_T_MAX) == 0 &&
        count_key(tables->held[STATUSES], str_ok, PY_SSIZE_T_MAX) == 0 &&
        add_attribute(counts, str_transactions, 1) == 0 &&
        (stats == NULL || (add_attribute(stats, str_answers, 1) == 0 &&
                           add_attribute(stats, str_answer_bytes, 4 * (int64_t)message->answers) == 0)))
        taken = 1;
    if (taken > 0 && kept < MOST_TIMES) {
        PyObject *done = PyObject_CallMethodOneArg(times, str_append, elapsed);

        Py_XDECREF(done);
        if (done == NULL)
            taken = -1;
    }
    Py_XDECREF(rcode);
    Py_XDECREF(elapsed);
    Py_XDECREF(ended);
done:
    Py_XDECREF(waiting);
    Py_XDECREF(parent);
    Py_XDECREF(place);
    Py_XDECREF(stats);
    Py_XDECREF(row);
    Py_XDECREF(texts);
    Py_XDECREF(server);
    Py_XDECREF(counts);
    Py_XDECREF(times);
    return taken;
}

int dns_take(Unusual *self, PyObject *key, int64_t at, int64_t end, int64_t t, int64_t frame)
{
    Message message = {.bytes = (const unsigned char *)self->view.buf + at, .size = end - at};
    int taken = end < at ? 0 : read_question(&message);

    if (taken > 0)
        taken = message.flags & 0x8000 ? take_answer(self, &message, key, t, frame)
                                       : take_question(self, &message, key, t, frame);
    Py_XDECREF(message.name);
    Py_XDECREF(message.lowered);
    return taken;
}
