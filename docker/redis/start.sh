#!/bin/sh
# Redis with one account for each service, from secrets in the environment. Nobody gets in without one; what anybody
# may know is whether Redis is well, by the account `health`, whose password never leaves the container.
set -eu
umask 077
folder=/run/redis
health=$(head -c 18 /dev/urandom | od -An -tx1 | tr -d ' \n')
printf %s "$health" > "$folder/health"

# Workers and conductor put messages into queues, take them out, and agree on who does what. INFO is for Celery.
commands='+@read +@write +@connection +@transaction +@scripting +@pubsub +@blocking -@dangerous -@admin +info'
queues='~train* ~evaluate* ~analyze* ~unacked* ~_kombu.*'
stack="resetchannels &/* ~edgejoule:* $queues $commands"
{
  # Nobody is the default user, but Redis 7 replays transactions as that one when it starts: without rights it would drop them.
  echo 'user default off ~* &* +@all'
  echo "user health on >$health -@all +ping"
  echo "user admin on >${REDIS_ADMIN_PASSWORD:?is not set} ~* &* +@all"
  echo "user conductor on >${CONDUCTOR_SECRET:?is not set} $stack ~device.*"
  echo "user trainer on >${TRAINER_SECRET:?is not set} $stack"
  echo "user evaluator on >${EVALUATOR_SECRET:?is not set} $stack"
  echo "user analyst on >${ANALYST_SECRET:?is not set} $stack"
  # It takes what waits for boards, and sends nothing.
  echo "user gateway on >${GATEWAY_SECRET:?is not set} resetchannels ~edgejoule:* ~device.* $commands"
  # People submit and watch; sending messages is the conductor's.
  echo "user operator on >${OPERATOR_SECRET:?is not set} resetchannels ~edgejoule:* %R~train* %R~evaluate* %R~analyze* %R~device.* $commands"
  # KEDA asks by a small script how long the evaluators' queue is; it could not take anything out.
  [ -z "${KEDA_SECRET:-}" ] ||
    echo "user keda on >$KEDA_SECRET resetchannels ~evaluate -@all +ping +hello +client|setinfo +eval +type +llen"
} > "$folder/users.acl"

exec redis-server --bind '* -::*' --port 6379 --protected-mode no --aclfile "$folder/users.acl" --dir /data \
  --appendonly yes --appendfsync everysec --save '' --maxmemory "${REDIS_MAXMEMORY:-512mb}" --maxmemory-policy noeviction
