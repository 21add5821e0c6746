{{/* Names, labels, images. */}}
{{- define "edgejoule.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Of all objects of the release; with a component (dict "root" $ "component" "trainer") of one service. */}}
{{- define "edgejoule.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "edgejoule.labels" -}}
{{ include "edgejoule.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "edgejoule.metadata" -}}
name: {{ include "edgejoule.fullname" .root }}{{ with .component }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "edgejoule.labels" . | nindent 2 }}
{{- end }}

{{/* (dict "root" $ "image" "whole reference, or empty" "repository" "trainer") */}}
{{- define "edgejoule.image" -}}
{{- $image := .root.Values.image -}}
{{- $registry := $image.registry | trimSuffix "/" -}}
{{- $own := printf "edgejoule/%s:%s" .repository (default .root.Chart.AppVersion $image.tag) -}}
{{- if $registry }}{{ $own = printf "%s/%s" $registry $own }}{{ end -}}
{{- default $own .image -}}
{{- end }}

{{/* What every pod has: no token of the cluster's, a user without rights, a file system that nobody writes to. */}}
{{- define "edgejoule.podDefaults" -}}
serviceAccountName: {{ include "edgejoule.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false # else the Service of the gateway would set EDGEJOULE_GATEWAY_PORT in every pod, to a URL
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "edgejoule.containerDefaults" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* One key of the Secret: (dict "name" "A_VARIABLE" "secret" "a-secret" "key" "A_KEY") */}}
{{- define "edgejoule.secretVariable" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}

{{- define "edgejoule.storeVariables" -}}
- name: EDGEJOULE_STORE
  value: {{ printf "s3://%s/%s" .Values.store.bucket .Values.store.prefix | trimSuffix "/" }}
- name: EDGEJOULE_S3_ENDPOINT
  value: {{ if .Values.s3.enabled }}http://{{ include "edgejoule.fullname" . }}-s3:9000{{ else }}{{ .Values.s3.external.endpoint }}{{ end }}
{{- end }}

{{/* "true" where the init job makes the accounts, whose names are then ours to say. */}}
{{- define "edgejoule.makesAccounts" -}}
{{- if or .Values.s3.enabled .Values.s3.external.makeAccounts }}true{{ end -}}
{{- end }}

{{/* The settings of a service that has the store and the queues (docs/reference/settings.md). */}}
{{- define "edgejoule.variables" -}}
{{- $values := .root.Values -}}
{{- $upper := upper .component -}}
{{ include "edgejoule.storeVariables" .root }}
{{- if not $values.s3.enabled }}
- name: EDGEJOULE_S3_REGION
  value: {{ $values.s3.external.region }}
{{- end }}
{{- if include "edgejoule.makesAccounts" .root }}
- name: EDGEJOULE_S3_ACCESS_KEY
  value: edgejoule{{ .component }}
{{ include "edgejoule.secretVariable" (dict "name" "EDGEJOULE_S3_SECRET_KEY" "secret" $values.existingSecret "key" (printf "%s_SECRET" $upper)) }}
{{- else }}
{{ include "edgejoule.secretVariable" (dict "name" "EDGEJOULE_S3_ACCESS_KEY" "secret" $values.s3.external.existingSecret "key" (printf "%s_ACCESS_KEY" $upper)) }}
{{ include "edgejoule.secretVariable" (dict "name" "EDGEJOULE_S3_SECRET_KEY" "secret" $values.s3.external.existingSecret "key" (printf "%s_SECRET_KEY" $upper)) }}
{{- end }}
{{- if $values.redis.enabled }}
{{ include "edgejoule.secretVariable" (dict "name" (printf "%s_SECRET" $upper) "secret" $values.existingSecret "key" (printf "%s_SECRET" $upper)) }}
- name: EDGEJOULE_BROKER
  value: redis://{{ .component }}:$({{ $upper }}_SECRET)@{{ include "edgejoule.fullname" .root }}-redis:6379/0
{{- else }}
{{ include "edgejoule.secretVariable" (dict "name" "EDGEJOULE_BROKER" "secret" $values.redis.external.existingSecret "key" (printf "%s_BROKER" $upper)) }}
{{- end }}
- name: EDGEJOULE_WORKSPACE
  value: /var/lib/edgejoule
- name: EDGEJOULE_CACHE_GB
  value: {{ .values.cacheGB | default 0.5 | quote }}
- name: EDGEJOULE_LOCKS
  value: /var/lock/edgejoule
{{- end }}

{{/* Of a service that touches a file while it does its work. */}}
{{- define "edgejoule.aliveProbes" -}}
startupProbe:
  exec: {command: [edgejoule, alive]}
  periodSeconds: 5
  timeoutSeconds: 20
  failureThreshold: 36
livenessProbe:
  exec: {command: [edgejoule, alive]}
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 3
{{- end }}

{{/*
A pod of one of our services:
(dict "root" $ "component" "trainer" "values" .Values.trainer "repository" "trainer" "args" (list "worker" "train"))
and, where they differ: "env" and "probes" (in place of those of a worker), "ports", "claim" (a volume `workspace` is there),
"restartPolicy", "volumes", "mounts", "extra". Without "args" the image's own entry point says it all.
*/}}
{{- define "edgejoule.podTemplate" -}}
metadata:
  labels: {{- include "edgejoule.labels" . | nindent 4 }}
  {{- with .values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "edgejoule.podDefaults" . | nindent 2 }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: 30 # SIGTERM has a worker stop its step and give it back, within seconds
  {{- with .values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .extra }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "edgejoule.image" (dict "root" .root "image" .values.image "repository" .repository) }}
      {{- include "edgejoule.containerDefaults" .root | nindent 6 }}
      {{- with .args }}
      args: {{ toJson . }}
      {{- end }}
      env: {{- if .env }}{{ .env | nindent 8 }}{{ else }}{{ include "edgejoule.variables" . | nindent 8 }}{{ end }}
        {{- if .root.Values.metrics.enabled }}
        - name: EDGEJOULE_METRICS
          value: 0.0.0.0:9464
        {{- end }}
      {{- if or .ports .root.Values.metrics.enabled }}
      ports:
        {{- with .ports }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- if .root.Values.metrics.enabled }}
        - {name: metrics, containerPort: 9464}
        {{- end }}
      {{- end }}
      {{- $resources := deepCopy .values.resources }}
      {{- with .values.gpus }}
      {{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" .) ($resources.limits | default dict)) }}
      {{- end }}
      resources: {{- toYaml $resources | nindent 8 }}
      {{- if .probes }}
      {{- .probes | nindent 6 }}
      {{- else }}
      # No readiness: nobody connects to it.
      {{- include "edgejoule.aliveProbes" . | nindent 6 }}
      {{- end }}
      volumeMounts:
        - {name: workspace, mountPath: /var/lib/edgejoule}
        - {name: locks, mountPath: /var/lock/edgejoule}
        - {name: tmp, mountPath: /tmp}
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if not .claim }}
    - {name: workspace, emptyDir: {sizeLimit: {{ .values.workspace }}}}
    {{- end }}
    {{- if and .root.Values.hostLock.path (not (has .component (list "conductor" "gateway"))) }}
    - {name: locks, hostPath: {path: {{ .root.Values.hostLock.path }}, type: Directory}}
    {{- else }}
    - {name: locks, emptyDir: {sizeLimit: 1Mi}}
    {{- end }}
    - {name: tmp, emptyDir: {sizeLimit: 512Mi}}
    {{- with .volumes }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "edgejoule.claim" -}}
metadata: {name: {{ .name }}}
spec: {{- include "edgejoule.claimSpec" . | nindent 2 }}
{{- end }}

{{- define "edgejoule.claimSpec" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end }}
