// Browsers start no worker from a file. On pages read from files, what the search asks to be a worker is a frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<!doctype html>";
      this.frame.addEventListener("load", () => this.start(new URL(url, location)), { once: true });
      document.body.append(this.frame);
    }

    start(url) {
      const scope = this.frame.contentWindow;
      scope.postMessage = (data) => queueMicrotask(() => this.receive(data));
      const script = scope.document.createElement("script");
      script.src = url;
      script.onerror = () => this.onerror?.(new ErrorEvent("error"));
      script.onload = () => {
        this.scope = scope;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      };
      scope.document.head.append(script);
    }

    receive(data) {
      const message = new MessageEvent("message", { data });
      this.onmessage?.(message);
      this.dispatchEvent(message);
    }

    postMessage(data) {
      if (this.scope) queueMicrotask(() => this.scope?.onmessage?.(new MessageEvent("message", { data })));
      else this.waiting.push(data);
    }

    terminate() {
      this.frame.remove();
      this.scope = null;
    }
  };
}
