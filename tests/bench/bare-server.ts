import { createServer } from 'node:http';

/** The yardstick: node:http and nothing else, answering with a document of the same size. Prints its port. */
const body = Buffer.alloc(Number(process.argv[2] ?? 1600), 'x');
const server = createServer((_request, response) => {
  response.writeHead(200, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': body.length,
  });
  response.end(body);
});
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  process.stdout.write(`${typeof address === 'object' && address !== null ? address.port : 0}\n`);
});
