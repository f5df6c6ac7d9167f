# The chat client `llm` (a conversation, streamed and not), unmodified. Run by test_clients.py, in an environment of its own.
set -e
mkdir -p "$LLM_USER_PATH"
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- model_id: mini
  model_name: multiverse-mini
  api_base: "$OPENAI_BASE_URL"
  api_key_name: mini
  supports_schema: true
YAML
"$BIN/llm" keys set mini --value "$OPENAI_API_KEY"  # to an address of one's own it sends no key from the environment
"$BIN/llm" -m mini -o temperature 0 "What is 3 plus 4?" | grep -q . && echo "ok: stream"
"$BIN/llm" -m mini -o temperature 0 --no-stream -c "And 5 plus 4?" | grep -q . && echo "ok: conversation"
"$BIN/llm" -m mini -o temperature 0 --no-stream -s "Be brief." "What is 3 plus 4?" | grep -q . && echo "ok: system"
"$BIN/llm" -m mini -o temperature 0 --no-stream --schema '{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false}' "What is 3 plus 4?" | grep -q '"n": *[12]' && echo "ok: schema"
