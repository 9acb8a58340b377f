"""A relay between switches and the controller that hides a switch's meters: run as a program in the core namespace.

    python meterless.py LISTEN_PORT CONTROLLER_PORT

What the switch answers about its meters (OpenFlow 1.3, multipart reply of type meter-features) says `max_meter` 0, as a
datapath without meters does; everything else passes as it is.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading

MULTIPART_REPLY, METER_FEATURES = 19, 11


def whole(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def relay(source: socket.socket, target: socket.socket, hide: bool) -> None:
    try:
        while True:
            head = whole(source, 8)
            _, kind, length, _ = struct.unpack("!BBHI", head)
            body = bytearray(whole(source, length - 8))
            if hide and kind == MULTIPART_REPLY and struct.unpack_from("!H", body)[0] == METER_FEATURES:
                struct.pack_into("!I", body, 8, 0)
            target.sendall(head + body)
    except OSError:
        pass
    finally:
        for end in (source, target):
            end.close()


def main() -> None:
    listen, controller = int(sys.argv[1]), int(sys.argv[2])
    with socket.create_server(("127.0.0.1", listen)) as server:
        print("ready", flush=True)
        while True:
            switch, _ = server.accept()
            try:
                upstream = socket.create_connection(("127.0.0.1", controller), timeout=5)
            except OSError:
                switch.close()
                continue
            upstream.settimeout(None)
            threading.Thread(target=relay, args=(switch, upstream, True), daemon=True).start()
            threading.Thread(target=relay, args=(upstream, switch, False), daemon=True).start()


if __name__ == "__main__":
    main()
