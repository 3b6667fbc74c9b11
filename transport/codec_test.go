package transport

import (
	"bytes"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestParseCodec(t *testing.T) {
	for _, want := range codecs {
		if got, err := ParseCodec(want.String()); got != want || err != nil {
			t.Errorf("%s: %v, %v", want, got, err)
		}
	}
	for _, name := range []string{"", "gzip", "codec 3", "ZSTD"} {
		_, err := ParseCodec(name)
		if fault.KindOf(err) != fault.BadValue || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", name, err)
		}
	}
	if got := Codec(9).String(); got != "codec 9" {
		t.Error(got)
	}
}

// codecOf is the codec a frame with this payload went out with.
func codecOf(t *testing.T, codec Codec, typ Type, payload []byte) Codec {
	return Codec(encode(t, codec, []frame{{typ, payload}})[1])
}

func TestWhatIsPacked(t *testing.T) {
	zeros := make([]byte, 4096)
	noise := sample()[len(sample())-2].Payload
	for _, codec := range []Codec{CodecLZ4, CodecZstd} {
		for _, c := range []struct {
			what    string
			typ     Type
			payload []byte
			want    Codec
		}{
			{"pages", TypePages, zeros, codec},
			{"image", TypeImage, zeros, codec},
			{"file data", TypeFileData, zeros, codec},
			{"shortest", TypeFileData, zeros[:minPack], codec},
			{"too short", TypeFileData, zeros[:minPack-1], CodecNone},
			{"noise", TypePages, noise, CodecNone},
			{"entry", TypeFileEntry, zeros, CodecNone},
			{"control", TypeOffer, zeros, CodecNone},
		} {
			if got := codecOf(t, codec, c.typ, c.payload); got != c.want {
				t.Errorf("%s: %s went as %s, want %s", codec, c.what, got, c.want)
			}
		}
	}
}

func TestLargestPayload(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		payload := bytes.Repeat([]byte("0123456789abcdef"), MaxPayload/16)
		got, _ := readAll(connOf(encode(t, codec, []frame{{TypePages, payload}})))
		if len(got) != 1 || !bytes.Equal(got[0].Payload, payload) {
			t.Error("payload changed")
		}
	})
}
