#!/bin/sh
# A small ingress controller: nginx, configured from the Ingresses of class "small", looked at every two seconds.
mkdir -p /tmp/nginx
running=
while :; do
  if kubectl get ingresses --all-namespaces -o go-template-file=/nginx.template > /tmp/new.conf &&
     ! cmp -s /tmp/new.conf /tmp/nginx.conf; then
    # A configuration that nginx refuses, such as for a Service that is not there yet, leaves the last one in place.
    if nginx -q -t -c /tmp/new.conf; then
      mv /tmp/new.conf /tmp/nginx.conf
      if [ -n "$running" ]; then nginx -c /tmp/nginx.conf -s reload; else nginx -c /tmp/nginx.conf && running=yes; fi
      echo "configured: $(grep -c server_name /tmp/nginx.conf) hosts"
    fi
  fi
  sleep 2
done
