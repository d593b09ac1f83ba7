"use strict";
// The upload of an upgrade bundle with its progress; without this script the form does it.
{
  const form = document.getElementById("bundle");
  const box = document.getElementById("bundle-progress");
  const say = (text, kind) => {
    const line = document.createElement("p");
    line.textContent = text;
    line.className = kind;
    box.replaceChildren(line);
    return line;
  };
  form?.addEventListener("submit", (event) => {
    const file = form.querySelector('input[type="file"]').files[0];
    event.preventDefault();
    event.stopPropagation();
    if (!file) return;
    if (file.size > Number(form.dataset.limit)) { say("The file is too large to be a bundle.", "bad-text"); return; }
    const button = form.querySelector("button");
    const bar = document.createElement("progress");
    const request = new XMLHttpRequest();
    button.disabled = true;
    const line = say("0 %", "muted");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", "Upload of the bundle");
    box.prepend(bar);
    request.open("POST", "/api/v1/device/bundle");
    request.setRequestHeader("X-CSRF-Token", postern.csrf);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (told) => {
      bar.value = told.loaded / Math.max(1, told.total);
      line.textContent = told.loaded < told.total ? `${Math.floor((100 * told.loaded) / Math.max(1, told.total))} %` : "Uploaded; it is being verified …";
    };
    request.onload = () => {
      if (request.status === 201) { location.assign("/system/upgrade"); return; }
      if (request.status === 401) { location.reload(); return; }
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* said below */ }
      say(answer.detail || `The gateway answered ${request.status}.`, "bad-text");
      button.disabled = false;
    };
    request.onerror = () => { say("The connection broke; choose the file again.", "bad-text"); button.disabled = false; };
    request.send(file);
  });
}
