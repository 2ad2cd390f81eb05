import { connect, createServer } from 'node:net';

// Runs inside a network namespace of the lab (started by nsenter): whoever connects to the unix socket, which belongs
// to the file system and not to a network, is connected to the port inside. Prints one line when it listens.
const [socketPath, port] = process.argv.slice(2);
const server = createServer({ allowHalfOpen: true }, (outside) => {
  const inside = connect({ host: '127.0.0.1', port: Number(port), allowHalfOpen: true });
  outside.on('error', () => inside.destroy());
  inside.on('error', () => outside.destroy());
  outside.pipe(inside);
  inside.pipe(outside);
});
server.listen(socketPath, () => console.log('relay ready'));
