import { debianTree } from '/root/wt/lab/tests/lab/tree.ts';

console.time('tree');
console.log(await debianTree());
console.timeEnd('tree');
