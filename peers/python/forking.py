"""Capitals by `socketserver.ForkingTCPServer`: a process per connection. Prints its port."""

import socketserver


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Server(socketserver.ForkingTCPServer):
    request_queue_size = 1024  # the default of 5 would measure retransmissions
    max_children = 1000


with Server(("127.0.0.1", 0), Upper) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
