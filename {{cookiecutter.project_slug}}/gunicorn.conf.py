"""How gunicorn serves the app: run `gunicorn` in this folder.

All settings: https://docs.gunicorn.org/en/stable/settings.html. It listens on PORT of every address, or on
127.0.0.1:8000 if PORT is not set. The app logs each request, so gunicorn keeps no access log.
"""

from {{cookiecutter.package_name}}.config import Settings
from {{cookiecutter.package_name}}.secure import server

# Refuses to start with an invalid setting, and gives the last valid settings to the workers.
master = server.Master(Settings)
on_starting = master.on_starting
when_ready = on_reload = master.on_ready
pre_fork = master.pre_fork
post_fork = master.post_fork
logger_class = master.logger_class

wsgi_app = "{{cookiecutter.package_name}}.app:create_app()"
bind = server.bind()
workers = server.number("WEB_CONCURRENCY", 2)
threads = server.number("WEB_THREADS", 4)
# Seconds that a request has to finish when its worker stops, and after which a worker that hangs is killed.
timeout = graceful_timeout = 30
# Longer than a load balancer keeps an idle connection (mostly 60 seconds): the balancer closes it first.
keepalive = 75
worker_tmp_dir = server.worker_tmp_dir()
# A running server is controlled by signals only.
control_socket_disable = True
# TRUSTED_PROXIES tells the app which headers to believe; gunicorn believes none.
forwarded_allow_ips = ""
secure_scheme_headers = {}
forwarder_headers = ""
