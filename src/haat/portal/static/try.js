// The try-it form: answers that come in pieces, and a microphone. Without script it sends a form and shows the answer.
(() => {
  "use strict";

  // --- answers as they are made -------------------------------------------------------------------
  const show = async (form) => {
    const answer = form.querySelector("#answer");
    const button = form.querySelector(".actions button");
    const said = document.createElement("p");
    said.className = "said";
    said.dir = "auto";
    answer.replaceChildren(said);
    button.disabled = true;
    try {
      const response = await fetch(form.dataset.streams, { method: "POST", body: new FormData(form), headers: { "HX-Request": "true" } });
      if (!response.headers.get("content-type").startsWith("text/event-stream")) {
        answer.innerHTML = await response.text();
        return;
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const [name, data] = event.split("\n", 2).map((line) => line.slice(line.indexOf(": ") + 2));
          if (name === "text") said.append(JSON.parse(data));
          if (name === "done") answer.innerHTML = JSON.parse(data);
        }
      }
    } finally {
      button.disabled = false;
    }
  };
  // Before htmx hears of it, which would wait for the whole answer.
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-streams]") || !window.TextDecoderStream) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const form = event.target;
    // Nothing is sent again by itself: the call may have been made.
    show(form).catch(() => { form.querySelector("#answer").textContent = form.dataset.failed; });
  }, true);

  // --- the microphone -----------------------------------------------------------------------------
  const SECONDS = 15;
  const RATE = 16000;

  // One channel of 16 bits at 16 kHz: what every speech service here takes.
  const wave = async (blob) => {
    const context = new AudioContext();
    const heard = await context.decodeAudioData(await blob.arrayBuffer());
    await context.close();
    const offline = new OfflineAudioContext(1, Math.ceil(heard.duration * RATE), RATE);
    const source = offline.createBufferSource();
    source.buffer = heard;
    source.connect(offline.destination);
    source.start();
    const samples = (await offline.startRendering()).getChannelData(0);
    const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
    const words = (at, text) => [...text].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
    words(0, "RIFF"); view.setUint32(4, 36 + samples.length * 2, true); words(8, "WAVEfmt ");
    view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
    view.setUint32(24, RATE, true); view.setUint32(28, RATE * 2, true); view.setUint16(32, 2, true);
    view.setUint16(34, 16, true); words(36, "data"); view.setUint32(40, samples.length * 2, true);
    samples.forEach((sample, place) => view.setInt16(44 + place * 2, Math.max(-1, Math.min(1, sample)) * 32767, true));
    return new File([view], "recording.wav", { type: "audio/wav" });
  };

  for (const input of document.querySelectorAll("input[data-records]")) {
    if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder || !window.OfflineAudioContext) continue;
    const words = input.dataset;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small second";
    button.textContent = words.record;
    const told = document.createElement("span");
    told.className = "small muted";
    told.setAttribute("role", "status");
    const player = document.createElement("audio");
    player.controls = true;
    player.hidden = true;
    input.after(button, told, player);
    let recorder = null;
    button.addEventListener("click", async () => {
      if (recorder) { recorder.stop(); return; }
      try {
        const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
        const pieces = [];
        recorder = new MediaRecorder(stream);
        recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
        recorder.addEventListener("stop", async () => {
          stream.getTracks().forEach((track) => track.stop());
          recorder = null;
          button.textContent = words.record;
          try {
            const file = await wave(new Blob(pieces));
            const chosen = new DataTransfer();
            chosen.items.add(file);
            input.files = chosen.files;
            URL.revokeObjectURL(player.src);
            player.src = URL.createObjectURL(file);
            player.hidden = false;
            told.textContent = words.recorded;
          } catch { told.textContent = words.refused; }
        });
        recorder.start();
        setTimeout(() => recorder?.stop(), SECONDS * 1000);
        button.textContent = words.stop;
        told.textContent = words.recording;
      } catch {
        recorder = null;
        told.textContent = words.refused;
      }
    });
  }
})();
