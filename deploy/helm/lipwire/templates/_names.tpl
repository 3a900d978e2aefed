{{- define "lipwire.name" -}}
{{- printf "%s%s" .root.Values.namePrefix .component | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "lipwire.selector" -}}
app.kubernetes.io/name: lipwire
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "lipwire.labels" -}}
{{ include "lipwire.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "lipwire.secure" -}}
{{- if and .Values.insecure .Values.tls.enabled -}}
{{- fail "insecure and tls.enabled exclude each other" -}}
{{- end -}}
{{- if not (or .Values.insecure .Values.tls.enabled) -}}
{{- fail "servers need tls.enabled, or insecure in a private network" -}}
{{- end -}}
{{- end -}}

{{- define "lipwire.scheme" -}}
{{- ternary "HTTPS" "HTTP" .Values.tls.enabled -}}
{{- end -}}

{{/* The sections of both servers' files that are alike. */}}
{{- define "lipwire.common" -}}
server:
  host: 0.0.0.0
  {{- if .Values.insecure }}
  insecure: true
  {{- else }}
  tls:
    cert: /etc/lipwire/tls/tls.crt
    key: /etc/lipwire/tls/tls.key
  {{- end }}
{{- if not .Values.insecure }}
security:
  keys_file: /etc/lipwire/keys/keys.json
{{- end }}
models_root: /srv/avatars
logging:
  format: json
{{- end -}}

{{- define "lipwire.inferenceConfig" -}}
{{- $ports := dict "server" (dict "port" 50051 "drain_delay" .Values.inference.drainDelaySeconds) "metrics" (dict "host" "0.0.0.0" "port" 9465) -}}
{{- mergeOverwrite (fromYaml (include "lipwire.common" .)) $ports .Values.inference.config | toYaml -}}
{{- end -}}

{{- define "lipwire.compositingConfig" -}}
{{- $url := ternary (printf "%s-inference" (include "lipwire.name" (dict "root" . "component" "haproxy"))) (include "lipwire.name" (dict "root" . "component" "inference-server")) .Values.haproxy.enabled -}}
{{- $inference := dict "url" (printf "%s:50051" $url) -}}
{{- if .Values.tls.enabled -}}
{{- $_ := set $inference "tls" (dict "ca" "/etc/lipwire/tls/ca.crt" "server_name" .Values.tls.serverName) -}}
{{- end -}}
{{- $web := dict "enabled" .Values.compositing.web.enabled "host" "0.0.0.0" "port" 8080 "hosts" .Values.compositing.web.hosts -}}
{{- $own := dict "server" (dict "port" 50052 "drain_delay" .Values.compositing.drainDelaySeconds) "inference_server" $inference "web" $web "metrics" (dict "host" "0.0.0.0" "port" 9464) "live" (dict "drain_timeout" .Values.compositing.drainTimeoutSeconds) -}}
{{- mergeOverwrite (fromYaml (include "lipwire.common" .)) $own .Values.compositing.config | toYaml -}}
{{- end -}}

{{/* That of a compositing server, with the section of finished videos. */}}
{{- define "lipwire.renderConfig" -}}
{{- $renders := mergeOverwrite (dict "folder" "/var/lib/lipwire/renders") .Values.renders.config -}}
{{- mergeOverwrite (fromYaml (include "lipwire.compositingConfig" .)) (dict "renders" $renders) | toYaml -}}
{{- end -}}

{{/* root, component, command (inference-server or compositing-server), values (inference or compositing), port, metricsPort,
     file, config; stateVolume and a fixed pod (fixed), where videos lie in it */}}
{{- define "lipwire.server" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "lipwire.name" . }}
  labels: {{- include "lipwire.labels" . | nindent 4 }}
spec:
  {{- if not .values.autoscaling.kind }}
  replicas: {{ .values.replicas }}
  {{- end }}
  strategy:
    {{- if .fixed }}
    # Two cannot have one folder of videos.
    type: Recreate
    {{- else }}
    rollingUpdate:
      # A GPU more for the time of an update may not be there.
      maxSurge: {{ ternary 0 1 (eq .component "inference-server") }}
      maxUnavailable: {{ ternary 1 0 (eq .component "inference-server") }}
    {{- end }}
  selector:
    matchLabels: {{- include "lipwire.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "lipwire.labels" . | nindent 8 }}
      annotations:
        checksum/config: {{ .config | sha256sum }}
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add .values.drainDelaySeconds .values.drainTimeoutSeconds 30 }}
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- with .values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: {{ .root.Values.topologySpread.maxSkew }}
          topologyKey: {{ .root.Values.topologySpread.topologyKey }}
          whenUnsatisfiable: {{ .root.Values.topologySpread.whenUnsatisfiable }}
          labelSelector:
            matchLabels: {{- include "lipwire.selector" . | nindent 14 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: {{ .component }}
          image: "{{ .values.image.repository }}:{{ .values.image.tag | default .root.Chart.AppVersion }}"
          imagePullPolicy: {{ .values.image.pullPolicy }}
          args: [{{ .command }}, --config, /etc/lipwire/config/{{ .file }}]
          ports:
            - name: grpc
              containerPort: {{ .port }}
            - name: metrics
              containerPort: {{ .metricsPort }}
            {{- if eq .command "compositing-server" }}
            {{- if .values.web.enabled }}
            - name: http
              containerPort: 8080
            {{- end }}
            {{- end }}
          {{- if or .values.env (eq .command "compositing-server") }}
          env:
            {{- if eq .command "compositing-server" }}
            {{- if not .root.Values.insecure }}
            - name: LIPWIRE_INFERENCE_SERVER__TOKEN
              valueFrom:
                secretKeyRef:
                  name: {{ .root.Values.tokens.secretName }}
                  key: inference-token
            {{- end }}
            {{- if .values.web.enabled }}
            - name: LIPWIRE_WEB__TOKEN
              valueFrom:
                secretKeyRef:
                  name: {{ .root.Values.tokens.secretName }}
                  key: web-token
            {{- end }}
            {{- end }}
            {{- with .values.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          # Preloaded avatars may have to be compiled first.
          startupProbe:
            httpGet:
              path: /healthz
              port: metrics
              scheme: {{ include "lipwire.scheme" .root }}
            periodSeconds: 5
            failureThreshold: 180
          # 503 while it drains, or cannot make mouths.
          readinessProbe:
            httpGet:
              path: /readyz
              port: metrics
              scheme: {{ include "lipwire.scheme" .root }}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          # Whether the server itself answers, by gRPC, and its threads are there.
          livenessProbe:
            exec:
              command:
                - lipwire
                - health
                - localhost:{{ .port }}
                - --live
                - --timeout
                - "20"
                {{- if .root.Values.tls.enabled }}
                - --tls-ca
                - /etc/lipwire/tls/ca.crt
                - --tls-name
                - {{ .root.Values.tls.serverName }}
                {{- end }}
            periodSeconds: 30
            timeoutSeconds: 30
            failureThreshold: 3
          resources: {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: config
              mountPath: /etc/lipwire/config
              readOnly: true
            - name: avatars
              mountPath: /srv/avatars
              readOnly: true
            - name: cache
              mountPath: /var/cache/lipwire
            - name: state
              mountPath: /var/lib/lipwire
            - name: tmp
              mountPath: /tmp
            {{- if .root.Values.tls.enabled }}
            - name: tls
              mountPath: /etc/lipwire/tls
              readOnly: true
            {{- end }}
            {{- if not .root.Values.insecure }}
            - name: keys
              mountPath: /etc/lipwire/keys
              readOnly: true
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ include "lipwire.name" . }}
        - name: avatars
          {{- toYaml .root.Values.avatars.volume | nindent 10 }}
        - name: cache
          {{- toYaml .values.cacheVolume | nindent 10 }}
        - name: state
          {{- toYaml (.stateVolume | default (dict "emptyDir" (dict))) | nindent 10 }}
        - name: tmp
          emptyDir: {}
        {{- if .root.Values.tls.enabled }}
        - name: tls
          secret:
            secretName: {{ .root.Values.tls.secretName }}
            defaultMode: 0440
        {{- end }}
        {{- if not .root.Values.insecure }}
        - name: keys
          secret:
            secretName: {{ .root.Values.security.keysSecretName }}
            defaultMode: 0440
        {{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "lipwire.name" . }}
  labels: {{- include "lipwire.labels" . | nindent 4 }}
data:
  {{ .file }}: |
    {{- .config | nindent 4 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "lipwire.name" . }}
  labels: {{- include "lipwire.labels" . | nindent 4 }}
spec:
  selector: {{- include "lipwire.selector" . | nindent 4 }}
  ports: {{- include "lipwire.ports" . | nindent 4 }}
---
# The addresses of all pods, for HAProxy. One that drains is taken out by its own health.
apiVersion: v1
kind: Service
metadata:
  name: {{ include "lipwire.name" . }}-pods
  labels:
    {{- include "lipwire.labels" . | nindent 4 }}
    lipwire/pods: "true"
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "lipwire.selector" . | nindent 4 }}
  ports: {{- include "lipwire.ports" . | nindent 4 }}
{{- if not .fixed }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "lipwire.name" . }}
  labels: {{- include "lipwire.labels" . | nindent 4 }}
spec:
  minAvailable: {{ .values.minAvailable }}
  selector:
    matchLabels: {{- include "lipwire.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "lipwire.ports" -}}
- name: grpc
  port: {{ .port }}
  targetPort: grpc
{{- if eq .command "compositing-server" }}
{{- if .values.web.enabled }}
- name: http
  port: 8080
  targetPort: http
{{- end }}
{{- end }}
- name: metrics
  port: {{ .metricsPort }}
  targetPort: metrics
{{- end -}}
