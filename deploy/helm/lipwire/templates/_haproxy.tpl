{{/* As deploy/haproxy/haproxy.cfg, with the pods' addresses from the cluster's DNS. */}}
{{- define "lipwire.haproxyConfig" -}}
{{- $domain := printf "%s.svc.%s" .Release.Namespace .Values.haproxy.clusterDomain -}}
{{- $compositing := printf "%s-pods.%s" (include "lipwire.name" (dict "root" . "component" "compositing-server")) $domain -}}
{{- $renders := printf "%s-pods.%s" (include "lipwire.name" (dict "root" . "component" "render-server")) $domain -}}
{{- $inference := printf "%s-pods.%s" (include "lipwire.name" (dict "root" . "component" "inference-server")) $domain -}}
{{- $tls := .Values.tls.enabled -}}
{{- $bind := ternary "ssl crt /etc/haproxy/tls/tls.crt alpn h2" "proto h2" $tls -}}
{{- $bindHttp := ternary " ssl crt /etc/haproxy/tls/tls.crt alpn h2,http/1.1" "" $tls -}}
{{- $verify := printf "ssl verify required ca-file /etc/haproxy/tls/ca.crt sni str(%s) verifyhost %s" .Values.tls.serverName .Values.tls.serverName -}}
{{- $grpc := ternary (printf "%s alpn h2" $verify) "proto h2" $tls -}}
{{- $http := ternary (printf "%s alpn http/1.1" $verify) "" $tls -}}
{{- $most := int .Values.haproxy.maxServers -}}
global
    log stdout format raw local0 info
    maxconn 8000
    tune.h2.initial-window-size 1048576
    tune.h2.max-concurrent-streams 1000
    hard-stop-after {{ .Values.compositing.drainTimeoutSeconds }}s

resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    hold valid 5s
    # Where DNS fails, pods keep their addresses: checks say who is there.
    hold other 24d
    hold refused 24d
    hold timeout 24d

defaults
    mode http
    log global
    option httplog
    option dontlognull
    timeout connect 2s
    timeout http-request 30s
    timeout client 1h
    timeout server 1h
    timeout tunnel 24h
    timeout client-fin 30s
    retries 3
    option redispatch 1
    retry-on conn-failure
    option httpchk
    {{- if $tls }}
    http-check connect ssl sni {{ .Values.tls.serverName }} alpn http/1.1
    {{- else }}
    http-check connect proto h1
    {{- end }}
    http-check send meth GET uri /readyz/balancer ver HTTP/1.1 hdr host localhost
    http-check expect status 200
    default-server check inter 1s fastinter 500ms downinter 1s rise 2 fall 2 on-marked-down shutdown-sessions weight 100 slowstart 10s resolvers cluster init-addr none

frontend grpc
    bind :50052 {{ $bind }}
    use_backend live if { path_beg /lipwire.v1.AvatarService/ }
    {{- if .Values.renders.enabled }}
    use_backend renders if { path_beg /lipwire.v1.RenderService/ }
    {{- end }}
    use_backend batches if { req.hdr(x-model-id) -m found }
    default_backend batches-in-turn

backend batches
    http-check disable-on-404
    balance hdr(x-model-id)
    hash-type consistent sdbm avalanche
    hash-balance-factor 150
    server-template compositing 1-{{ $most }} {{ $compositing }}:50052 {{ $grpc }} port 9464

backend batches-in-turn
    http-check disable-on-404
    balance roundrobin
    server-template compositing 1-{{ $most }} {{ $compositing }}:50052 {{ $grpc }} port 9464

backend sessions
    stick-table type string len 64 size 200k expire 24h

backend live
    http-check disable-on-404
    balance leastconn
    stick match req.hdr(x-session-id) table sessions
    stick store-response res.hdr(x-session-id) table sessions
    server-template compositing 1-{{ $most }} {{ $compositing }}:50052 {{ $grpc }} port 9464

{{- if .Values.renders.enabled }}

backend renders
    http-check disable-on-404
    server renders {{ $renders }}:50052 {{ $grpc }} port 9464
{{- end }}

{{- if .Values.compositing.web.enabled }}

frontend http
    bind :8080{{ $bindHttp }}
    option forwardfor
    {{- if .Values.renders.enabled }}
    use_backend renders-web if { path /v1/render } || { path /v1/renders } || { path_beg /v1/renders/ }
    {{- end }}
    default_backend web

backend web
    http-check disable-on-404
    balance leastconn
    stick match path,field(4,/) table sessions if { path_beg /v1/sessions/ }
    stick match path,field(5,/) table sessions if { path_beg /whep/ }
    stick match url_param(session) table sessions if { path_beg /whep/ }
    stick store-response res.hdr(location),field(4,/) table sessions if { res.hdr(location) -m beg /v1/sessions/ }
    stick store-response res.hdr(location),field(5,/) table sessions if { res.hdr(location) -m beg /whep/ }
    server-template compositing 1-{{ $most }} {{ $compositing }}:8080 {{ $http }} port 9464
{{- if .Values.renders.enabled }}

backend renders-web
    http-check disable-on-404
    server renders {{ $renders }}:8080 {{ $http }} port 9464
{{- end }}
{{- end }}

frontend inference
    bind :50051 {{ $bind }}
    use_backend networks if { req.hdr(x-model-id) -m found }
    default_backend networks-in-turn

backend networks
    http-check disable-on-404
    balance hdr(x-model-id)
    hash-type consistent sdbm avalanche
    hash-balance-factor 150
    server-template inference 1-{{ $most }} {{ $inference }}:50051 {{ $grpc }} port 9465

backend networks-in-turn
    http-check disable-on-404
    balance roundrobin
    server-template inference 1-{{ $most }} {{ $inference }}:50051 {{ $grpc }} port 9465

frontend stats
    bind :8404
    http-request set-log-level silent
    monitor-uri /healthz
    http-request use-service prometheus-exporter if { path /metrics }
{{- end -}}
