import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { isFault } from '#lib/fault.ts';
import { refusal } from '#state/admit.ts';

const stranger: Caller = { class: 'public', proof: 'none' };
const said = (caller: Caller, operation: Parameters<typeof refusal>[0] = 'command.reboot') => {
  const refused = refusal(operation, caller, 'not-installed');
  return isFault(refused) ? { code: refused.code, remedy: refused.details.remedy } : undefined;
};

test('who shows no proof is told how to give one, and not to make anew what he has not made', () => {
  const answer = said(stranger);
  assert.equal(answer?.code, 'unproven');
  assert.match(String(answer?.remedy), /^Sign the request .* beosctl .* root on the node/);
});

test('a pod that passed on what it was asked is told to leave out what takes its proof away', () => {
  assert.match(String(said(stranger, 'command.mountSamba')?.remedy), /A pod .*audience beosd.*X-Forwarded-/);
  assert.doesNotMatch(String(said(stranger, 'storage.provision')?.remedy), /pod/);
});

test('who has shown another proof is told why that one is not enough', () => {
  assert.equal(said({ ...stranger, proof: 'signature-legacy', name: 'mallory' })?.code, 'not_owner');
  assert.equal(said({ class: 'owner', proof: 'session', name: 'alice' })?.code, 'forbidden');
  assert.equal(
    said({ class: 'owner', proof: 'signature-legacy', name: 'alice' }, 'storage.provision')?.code,
    'bound_form_required',
  );
  assert.equal(said({ class: 'root', proof: 'socket' }), undefined);
});
