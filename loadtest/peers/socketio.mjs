// A Socket.IO server that hands each message on to its room: node socketio.mjs [port]
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  socket.on("join", async (room, joined) => {
    await socket.join(room);
    joined?.();
  });
  socket.on("message", (room, payload) => io.to(room).emit("message", room, payload));
});

http.listen(Number(process.argv[2] ?? 3000), "127.0.0.1", () => {
  console.log(`listening at 127.0.0.1:${http.address().port}`);
});
