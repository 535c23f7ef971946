"""A line between a browser and a server that a test can cut and mend: TCP in the middle, bytes as they are."""

import contextlib
import socket
import threading


class Line:
    """Listens on a port of its own; `cut` breaks what is connected and refuses what comes, `mend` lets it through again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = True
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._open = False
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._open = True

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            with self._lock:
                if not self._open:
                    return
                try:
                    far = socket.create_connection(("127.0.0.1", self._to), timeout=10)
                except OSError:
                    return
                far.settimeout(None)
                self._ends |= {near, far}
            with far:
                up = threading.Thread(target=_pump, args=(near, far), daemon=True)
                up.start()
                _pump(far, near)
                up.join()
                with self._lock:
                    self._ends -= {near, far}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
