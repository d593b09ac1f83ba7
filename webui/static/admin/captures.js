"use strict";
// Uploads with progress, one after the other, by the form or by dropping files; without this script the form does it.
{
  const drop = document.getElementById("drop");
  const form = document.getElementById("upload");
  const list = document.getElementById("uploads");
  const limit = Number(drop.dataset.limit);
  const waiting = [];
  let busy = false;

  const line = (name) => {
    const item = document.createElement("li");
    const label = document.createElement("span");
    const bar = document.createElement("progress");
    const text = document.createElement("span");
    const stop = document.createElement("button");
    label.textContent = name;
    label.className = "break";
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Upload of ${name}`);
    text.className = "muted";
    text.textContent = "waits";
    stop.type = "button";
    stop.className = "small";
    stop.textContent = "Cancel";
    item.append(label, bar, text, stop);
    list.append(item);
    return { item, bar, text, stop };
  };
  const failed = (shown, words) => {
    shown.text.textContent = words;
    shown.text.className = "bad-text";
    shown.bar.remove();
    shown.stop.textContent = "Dismiss";
    shown.stop.onclick = () => shown.item.remove();
  };

  const send = (file, shown, done) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/v1/upload");
    request.setRequestHeader("X-CSRF-Token", postern.csrf);
    request.setRequestHeader("X-Filename", encodeURIComponent(file.name));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      shown.bar.value = event.loaded / Math.max(1, event.total);
      shown.text.textContent = `${Math.floor((100 * event.loaded) / Math.max(1, event.total))} %`;
    };
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* said below */ }
      if (request.status === 202) { shown.item.remove(); done(answer.task_id); return; }
      if (request.status === 401) { location.reload(); return; }
      if (request.status === 503 || request.status === 429) {
        let left = Number(request.getResponseHeader("Retry-After")) || 10;
        const tick = setInterval(() => {
          shown.text.textContent = `The queue is full; trying again in ${left} s`;
          if (--left < 0) { clearInterval(tick); send(file, shown, done); }
        }, 1000);
        shown.stop.onclick = () => { clearInterval(tick); shown.item.remove(); done(); };
        return;
      }
      failed(shown, answer.detail || `The gateway answered ${request.status}.`);
      done();
    };
    request.onerror = () => { failed(shown, "The connection broke; choose the file again."); done(); };
    shown.stop.onclick = () => { request.abort(); shown.item.remove(); done(); };
    shown.text.textContent = "0 %";
    request.send(file);
  };

  const next = () => {
    const job = waiting.shift();
    if (!job) { busy = false; return; }
    busy = true;
    send(job.file, job.shown, (id) => {
      if (id && waiting.length === 0 && !list.children.length) location.assign(`/captures/${id}`);
      else next();
    });
  };
  const add = (files) => {
    for (const file of files) {
      const shown = line(file.name);
      if (file.size > limit) { failed(shown, `larger than ${Math.floor(limit / 1e6)} MB`); continue; }
      if (!file.size) { failed(shown, "the file is empty"); continue; }
      const job = { file, shown };
      shown.stop.onclick = () => { waiting.splice(waiting.indexOf(job), 1); shown.item.remove(); };
      waiting.push(job);
    }
    if (!busy) next();
  };

  form.querySelector('input[type="file"]').multiple = true;
  const hint = document.createElement("p");
  hint.className = "drop-hint";
  hint.textContent = "or drop capture files here";
  form.append(hint);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopPropagation();
    add(form.querySelector('input[type="file"]').files);
    form.reset();
  });
  for (const name of ["dragenter", "dragover"])
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"])
    drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); add(event.dataTransfer.files); });
  // A file dropped beside the card must not replace the page.
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
}
