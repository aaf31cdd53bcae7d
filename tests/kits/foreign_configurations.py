"""Configurations of supervisord and pm2 as people have them, rewritten for tests."""

from __future__ import annotations

from typing import Final

SUPERVISORD: Final = {
    "gunicorn and celery of a Django shop": """\
[supervisord]
nodaemon=true
user=root
logfile=/dev/null
environment=DJANGO_SETTINGS_MODULE="shop.settings",LANG="C.UTF-8"

[program:gunicorn]
command=/venv/bin/gunicorn shop.wsgi:application --bind 127.0.0.1:8000 --workers 3
directory=/srv/shop
user=www-data
autostart=true
autorestart=true
redirect_stderr=true
stdout_logfile=/dev/stdout
stdout_logfile_maxbytes=0
stopsignal=TERM
killasgroup=true
priority=20

[program:celery]
; the worker needs time for its last task
command=/venv/bin/celery -A shop worker -l INFO
directory=/srv/shop
stopwaitsecs=600
stopasgroup=true
priority=10

[group:shop]
programs=gunicorn,celery
priority=999
""",
    "tornado with a port for each process": """\
[program:api]
command=python /srv/api/main.py --port=80%(process_num)02d --name=%(program_name)s
process_name=%(program_name)s_%(process_num)02d
numprocs=4
numprocs_start=1
autorestart=unexpected
exitcodes=0,2
startretries=5
stdout_logfile=/var/log/api/%(program_name)s_%(process_num)d.log
stderr_logfile=/var/log/api/error.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=5
""",
    "laravel queue": """\
[program:laravel-worker]
process_name=%(program_name)s_%(process_num)02d
command=php /var/www/app/artisan queue:work sqs --sleep=3 --tries=3
autostart=true
autorestart=true
stopasgroup=true
killasgroup=true
user=forge
numprocs=8
redirect_stderr=true
stdout_logfile=/var/www/app/worker.log
stopwaitsecs=3600
""",
    "nginx, php-fpm and cron in one container": """\
[unix_http_server]
file=/run/supervisor.sock
chmod=0700
password=thetest

[supervisord]
nodaemon=true
pidfile=/run/supervisord.pid

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix:///run/supervisor.sock

[program:nginx]
command=nginx -g "daemon off;"
stdout_logfile=/dev/fd/1
stdout_logfile_maxbytes=0
stderr_logfile=/dev/fd/2
stderr_logfile_maxbytes=0
autorestart=false
startretries=0

[program:php-fpm]
command=php-fpm -F
startsecs=5

[program:cron]
command=cron -f
autostart=false
""",
    "fcgi": """\
[fcgi-program:catalog]
command=/usr/bin/catalog.fcgi --config "/etc/my catalog.conf"
socket=unix:///run/%(program_name)s.sock
socket_owner=www-data:www-data
socket_mode=0660
socket_backlog=512
numprocs=2
process_name=%(program_name)s_%(process_num)d
umask=022
""",
    "event listener": """\
[program:worker]
command=/opt/bin/worker
environment=TOKEN="%(ENV_TOKEN)s",RATE="50%%",HERE='%(here)s',N=%(process_num)s

[eventlistener:memmon]
command=memmon -p worker=200MB
events=TICK_60
""",
    "shell characters and braces": """\
[program:odd name]
command=sh -c 'for i in 1 2; do echo "${i} {index}" $HOME; done; sleep 1000'
stopsignal=INT
""",
}

PM2: Final = {
    "ecosystem.config.js": """\
// pm2 start ecosystem.config.js
module.exports = {
  apps: [
    {
      name: 'api',
      script: './dist/server.js',
      cwd: '/srv/api',
      instances: 4,
      exec_mode: 'cluster',
      node_args: '--max-old-space-size=512',
      env: { NODE_ENV: 'development', PORT: 3000, DEBUG: false },
      env_production: { NODE_ENV: 'production' },
      increment_var: 'PORT',
      max_memory_restart: '300M',
      kill_timeout: 5000,
      wait_ready: true,
      listen_timeout: 10000,
      watch: false,
    },
    {
      name: "worker queue", // a blank
      script: "worker.py",
      interpreter: "/venv/bin/python",
      args: ["--queue", "mails and more"],
      autorestart: false,
      out_file: "/var/log/worker.log",
      error_file: "/var/log/worker.err",
      restart_delay: 3000,
      min_uptime: "10s",
    },
  ],

  deploy: { production: { user: 'deploy', host: ['10.0.0.1'], } },
};
""",
    "process.json": """\
{"apps": [{"name": "web", "script": "npm", "args": "run start -- -p 3000",
  "instances": "max", "merge_logs": true, "max_restarts": 10,
  "cron_restart": "0 3 * * *", "uid": "www-data", "stop_exit_codes": [0, 3]}]}
""",
    "one application": """\
export default {
  script: "npm start",
  exp_backoff_restart_delay: 100,
  env: {},
  treekill: false
}
""",
    "scripts of several languages": """\
/* all of them */
module.exports = [
  { script: 'app.py', instances: 2 },
  { script: 'run.sh', interpreter: 'none', name: 'run' },
  { script: '/usr/bin/redis-server', args: '--port 7000 --dir "/var/my dir"' },
  { name: 'app', script: 'other.rb' },
]
""",
}
