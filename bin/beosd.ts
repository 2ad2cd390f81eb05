#!/usr/bin/env node
import { main } from '#daemon/main.ts';

main(process.argv.slice(2), process.env).then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`beosd: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(1);
  },
);
